// deliver.js PORT SECRET CLIENT - what a receiver of examples/ makes of webhooks, which are signed by the library of
// Standard Webhooks, of nodes that there are not: prints, for each request, what it is answered and whether the user zoe
// is online then. CLIENT is one of a real node; it says something in the first batch. NODE_PATH has the library.
'use strict';
const { Webhook } = require('standardwebhooks');
const [port, secret, client] = process.argv.slice(2);
const url = `http://127.0.0.1:${port}`;
const good = new Webhook(secret), other = new Webhook(`whsec_${'b3RoZXI'.repeat(6)}=`);

let at = 0;
const event = (type, more) => ({ seq: ++at, type, at: Date.now(), ...more });
const zoe = { clientId: 'a-client-of-zoe', userId: 'zoe', extend: '' };
const connect = () => event('connect', { ...zoe, remote: '192.0.2.7', groups: [] });

function batch(events, epoch = 1, node = 'other:1') {
  return { id: `${node}.${epoch}.${events[0].seq}`, body: JSON.stringify({ systemId: 'x', node, epoch, events }) };
}

async function deliver(name, { id, body }, { keys = [good], age = 0, change = text => text } = {}) {
  const when = new Date(Date.now() - age * 1000);
  const headers = { 'Content-Type': 'application/json' };
  if (keys.length) Object.assign(headers, {
    'webhook-id': id, 'webhook-timestamp': Math.floor(when / 1000),
    'webhook-signature': keys.map(key => key.sign(id, when, body)).join(' '),
  });
  const { status } = await fetch(`${url}/events`, { method: 'POST', headers, body: change(body) });
  const online = await (await fetch(`${url}/online`)).json();
  console.log(`${name}: ${status} ${online.zoe ? 'online' : 'offline'}`);
}

(async () => {
  const first = batch([event('start', { lost: 0 }), connect(),
    event('message', { clientId: client, userId: '', text: 'once' })]);
  await deliver('unsigned', first, { keys: [] });
  await deliver('forged', first, { keys: [other] });
  await deliver('changed', first, { change: body => body.replace('zoe', 'zoo') });
  await deliver('stale', first, { age: 310 });
  await deliver('from the future', first, { age: -310 });
  await deliver('two signatures', first, { keys: [other, good] });
  await deliver('goes', batch([event('disconnect', { ...zoe, code: 1006, reason: '', seconds: 1 })]));
  await deliver('repeated', first);
  await deliver('comes', batch([connect()]));
  at = 0;
  await deliver('the node starts again', batch([event('start', { lost: 0 })], 2));
  await deliver('comes', batch([connect()], 2));
  at = 0;
  const moved = { ...zoe, clientId: 'a-client-of-zoe-that-moved', previous: zoe.clientId, remote: '192.0.2.7', groups: [] };
  await deliver('moves to another node', batch([event('start', { lost: 0 }), event('connect', moved)], 1, 'fourth:1'));
  const gone = { ...zoe, clientId: moved.clientId, code: 1000, reason: '', seconds: 1 };
  await deliver('goes there', batch([event('disconnect', gone)], 1, 'fourth:1'));
  at = 2;
  await deliver('what comes late of before it moved', batch([event('join', { ...zoe, groupName: 'g' })], 2));
  at = 3;
  await deliver('moves, and is not known', batch([event('connect', moved)], 1, 'fourth:1'));
  at = 3;
  await deliver('comes', batch([connect()], 2));
  at = 0;
  const end = { node: 'other:1', epoch: 2 };
  await deliver('another node tells of its end', batch([event('start', { lost: 0 }), event('end', end)], 1, 'third:1'));
  at = 4;
  await deliver('what comes late of before', batch([connect()], 2));
  at = 6;
  await deliver('a gap, and the list has no such node', batch([connect()], 3));
})();

// A business system in Node (18 or later, no packages): serves browser.html, gets a ticket for each page, and receives
// webhooks: it hears who comes, goes and speaks, knows who is online, and answers.
//
//     PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' PUSH_SECRET=whsec_... node business.js 8000
//
// Then open http://localhost:8000/, and http://localhost:8000/online for who is there. Only this program knows the
// password, says which user a page belongs to, and decides which groups it joins. Without PUSH_SECRET, which is what
// /api/set_webhook has answered, it takes no events.
'use strict';
const { createHmac, timingSafeEqual } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { createServer } = require('node:http');
const { call, reason, stop } = require('./push.js');

const file = name => readFileSync(require.resolve(name));
const group = process.env.PUSH_GROUP || 'news';
const secret = Buffer.from((process.env.PUSH_SECRET || '').replace('whsec_', ''), 'base64');
const bodyMax = 1 << 20; // bytes of a request

// Whether a request is from wspush, and not an old one sent again: https://www.standardwebhooks.com/.
function isSigned(headers, body) {
  const when = headers['webhook-timestamp'];
  if (!secret.length || !(Math.abs(Date.now() / 1000 - when) <= 300)) return false;
  const good = createHmac('sha256', secret).update(`${headers['webhook-id']}.${when}.`).update(body).digest();
  // for a day after the secret was changed, there are two signatures
  return (headers['webhook-signature'] || '').split(' ').some(one => {
    const mac = Buffer.from(one.slice(3), 'base64');
    return one.startsWith('v1,') && mac.length === good.length && timingSafeEqual(mac, good);
  });
}

// --- who is online, by the four rules of docs/api.md ---------------------------------------------

// Numbers of events: { epoch, seq }.
const none = { epoch: 0, seq: 0 };
const isBefore = (a, b) => a.epoch < b.epoch || (a.epoch === b.epoch && a.seq < b.seq);

const heard = new Map(); // node: the number of its last event
let listed = new Map(); // node: the number of its last event that the list takes account of
let clients = new Map(); // clientId: { node, epoch, user }

// Takes the events of a request. After an error, which says why it cannot, wspush sends them again.
async function take({ node, epoch, events }) {
  for (const event of events) await hear(node, { epoch, seq: event.seq }, event);
}

async function hear(node, number, event) {
  const last = heard.get(node) || none;
  if (!isBefore(last, number)) return; // rule 1: it was here before
  let missed = last.epoch !== number.epoch || last.seq !== number.seq - 1 ||
    'previous' in event && !clients.has(event.previous); // it has moved here; its old node has yet to tell of it
  if (event.type === 'start') {
    forget(node, number.epoch - 1); // rule 2
    missed = event.lost > 0;
  }
  if (missed || !heard.size) { // when this program starts, it has heard nothing
    await list(); // rule 3
    if (isBefore(listed.get(node) || none, number)) throw new Error(`the other nodes do not list ${node} yet`);
  }
  if (event.type === 'message') await answer(event, `${number.epoch}.${number.seq}`); // which no list has
  else if (isBefore(listed.get(node) || none, number)) apply(node, number.epoch, event);
  heard.set(node, number);
}

function apply(node, epoch, event) {
  if (event.type === 'end') { // rule 2, also for what comes late of these epochs
    const next = { epoch: event.epoch + 1, seq: 0 };
    forget(event.node, event.epoch);
    if (isBefore(listed.get(event.node) || none, next)) listed.set(event.node, next);
  } else if (event.type === 'disconnect') clients.delete(event.clientId);
  else if (event.type === 'connect' || event.type === 'join' && clients.has(event.clientId)) {
    clients.delete(event.previous); // it has moved here, and has no disconnect
    clients.set(event.clientId, { node, epoch, user: event.userId }); // a bind may have changed the user
  }
}

// Forgets the clients of a node that are of this epoch or older.
function forget(node, epoch) {
  for (const [id, client] of clients) if (client.node === node && client.epoch <= epoch) clients.delete(id);
}

// Gets the clients of all nodes, as they are now.
async function list() {
  const all = new Map(), numbers = new Map();
  let after = '';
  do {
    const page = await call('/api/list_clients', { after, limit: 1000 });
    if (page.incomplete) throw new Error('a node cannot be asked for its clients');
    for (const { node, epoch, seq } of page.seen || []) { // of the node whose clients are in the page
      if (!numbers.has(node)) numbers.set(node, { epoch, seq }); // that of its first page
      for (const { clientId, userId } of page.clients) all.set(clientId, { node, epoch, user: userId });
    }
    after = page.next;
  } while (after);
  [clients, listed] = [all, numbers];
}

// The ids of the clients of each user that is online: rule 4. Those without a user are under ''.
async function users() {
  if (!heard.size) await list(); // this program has just started
  const ids = new Map();
  for (const [id, { user }] of clients) ids.set(user, [...ids.get(user) || [], id]);
  return Object.fromEntries(ids);
}

// Answers what a client says; once, even if the event comes again after a crash of this program.
async function answer(event, messageId) {
  try {
    await call('/api/send_to_client', { clientId: event.clientId, code: 7, msg: 'answer',
      data: `You said: ${event.text}`, messageId, once: true });
  } catch (error) {
    if (error.code !== -1003) throw error; // it has gone, and needs no answer
  }
}

// One after the other: several nodes send at once, and what waits for wspush lets others in between.
let turn = Promise.resolve();
function inTurn(work) {
  const result = turn.then(work);
  turn = result.catch(() => {});
  return result;
}

// --- HTTP ----------------------------------------------------------------------------------------

async function read(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > bodyMax) throw new Error('a request is too long'); // which ends the connection
    parts.push(part);
  }
  return Buffer.concat(parts);
}

// Each returns a status, and then a text and its kind if there is one.
const routes = {
  'GET /': async () => [200, file('./browser.html'), 'text/html'],
  'GET /wspush.js': async () => [200, file('../wspush.js'), 'text/javascript'],
  'GET /online': async () => // a real one would not tell everybody
    [200, JSON.stringify(await inTurn(users)), 'application/json'],
  'POST /ticket': async request => {
    if ((request.headers['sec-fetch-site'] || 'same-origin') !== 'same-origin')
      return [403]; // another site's page asks, with the cookies of our user
    // a real one would know from its own login who this is
    return [200, (await call('/api/ticket', { userId: 'browser', groups: [group] })).ticket];
  },
  'POST /events': async (request, body) => {
    if (!isSigned(request.headers, body)) return [401];
    await inTurn(() => take(JSON.parse(body)));
    return [200];
  },
};

const server = createServer(async (request, response) => {
  let status = 404, text, kind;
  try {
    const body = await read(request);
    const route = routes[`${request.method} ${request.url.split('?')[0]}`];
    if (route) [status, text, kind] = await route(request, body);
  } catch (error) {
    console.error(reason(error));
    [status, text] = [503, 'the business system cannot ask wspush']; // which sends events again
  }
  response.writeHead(status, { 'Content-Type': `${kind || 'text/plain'}; charset=utf-8`, 'Cache-Control': 'no-store' });
  response.end(text);
});

const port = process.argv[2];
if (process.argv.length !== 3 || !/^\d+$/.test(port) || port > 65535) stop('Usage: business.js PORT');
server.on('error', error => stop(`business.js cannot listen on port ${port}: ${error.message}`));
server.listen(port, '127.0.0.1', () => console.log(`Open http://localhost:${port}/`));

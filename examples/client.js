// A wspush client for Node: prints each push as one line. It reconnects and resumes with wspush.js.
//
//     PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' node client.js
//
// It is its own business system, with the call() of push.js: only that knows the password, and gets the tickets.
'use strict';
const { readFileSync } = require('node:fs');
const { url, system, call, reason, stop } = require('./push.js');
const group = process.env.PUSH_GROUP || 'news';
const maxWait = Number(process.env.PUSH_MAX_WAIT || 30); // seconds

// Node 22 has a WebSocket.
function library() {
  try {
    return require('ws');
  } catch {
    return stop(`Node ${process.versions.node} has no WebSocket: take Node 22, or install ws. ` +
      'On Debian and Ubuntu: sudo apt-get install node-ws');
  }
}

// A new one for each connection: it is good for a minute.
async function ticket() {
  for (;;) {
    try {
      return (await call('/api/ticket', { userId: 'node', groups: [group] })).ticket;
    } catch (error) {
      if (error.code !== -1005) throw new Error(reason(error));
      // only somebody else can fix it, by registering the system
      const wait = maxWait * (1 + Math.random());
      console.error(`${error.message}; next try in ${wait.toFixed(1)} s`);
      await new Promise(resolve => setTimeout(resolve, wait * 1000));
    }
  }
}

function onstate(state, { code, reason, seconds, recovered, replay }) {
  const why = code === 1001 || code > 1006 ? `closed: ${code} ${reason}` : reason;
  const how = recovered ? `resumed, ${replay} replayed` : `connected, in the group ${group}`;
  if (state === 'open') console.error(how);
  if (state === 'waiting') console.error(`${why}; next try in ${seconds.toFixed(1)} s`);
  if (state === 'closed') stop(why);
}

async function main(WebSocket) {
  // a Node before 22 takes a .js file for CommonJS, unless it comes like this
  const file = readFileSync(require.resolve('../wspush.js'), 'base64');
  const { connect } = await import('data:text/javascript;base64,' + file);
  connect({
    url, system, ticket, maxWait, WebSocket, onstate,
    onpush: (message, text) => console.log(text),
    onlost: () => console.error('pushes are missing'),
  });
}

main(globalThis.WebSocket ?? library());

// A wspush client for Node: prints each push as one line, and reconnects when the connection ends.
//
//     PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' node client.js
//
// It is its own business system, with the call() of push.js: only that knows the password, and gets the tickets.
'use strict';
const { url, system, call, reason, stop } = require('./push.js');
const own = globalThis.WebSocket; // Node 22 has one
const Socket = own ?? library();
const group = process.env.PUSH_GROUP || 'news';
const maxWait = Number(process.env.PUSH_MAX_WAIT || 30); // seconds
let tries = 0; // since the last connection that was of use

function library() {
  try {
    return require('ws');
  } catch {
    return stop(`Node ${process.versions.node} has no WebSocket: take Node 22, or install ws. ` +
      'On Debian and Ubuntu: sudo apt-get install node-ws');
  }
}

// Node's own WebSocket does not say why it cannot connect. A request does.
async function whyNot() {
  try {
    const response = await fetch(url + '/healthz', { signal: AbortSignal.timeout(10000) });
    return `no WebSocket, though ${url} answers: HTTP ${response.status}`;
  } catch (error) {
    return reason(error);
  }
}

// patient: only somebody else can fix it, by registering the system
function later(why, patient) {
  // at random, so that clients do not all come back at once
  const wait = patient ? maxWait * (1 + Math.random()) : Math.random() * Math.min(maxWait, 2 ** tries);
  tries = Math.min(tries + 1, 10);
  console.error(`${why}; next try in ${wait.toFixed(1)} s`);
  setTimeout(start, wait * 1000);
}

async function start() {
  try { // a new ticket each time: it is good for a minute
    connect((await call('/api/ticket', { userId: 'node', groups: [group] })).ticket);
  } catch (error) {
    later(reason(error), error.code === -1005);
  }
}

function connect(ticket) {
  const address = url.replace('http', 'ws') + '/ws?systemId=' + encodeURIComponent(system);
  const socket = new Socket(address, { headers: { Ticket: ticket } }); // addresses end up in the logs of proxies
  let asked = Date.now(); // when the ping was sent that waits for its answer; 0: none does. The handshake is the first.
  let opened = false, first = true, over = false;
  const watch = setInterval(() => {
    if (asked) return Date.now() - asked > 10000 && end('no answer to a ping');
    asked = Date.now();
    socket.send('ping'); // answered with the text pong
  }, 15000);

  function end(why, patient) {
    if (over) return;
    over = true;
    clearInterval(watch);
    socket.close();
    later(why, patient);
  }

  socket.onmessage = ({ data }) => {
    asked = 0;
    if (over || data === 'pong') return;
    if (!first) return console.log(data);
    first = false;
    const frame = JSON.parse(data); // has our id, or the reason why we get none
    if (frame.code !== 0) return console.error(frame.msg);
    console.error('connected, in the group', group);
    tries = 0;
  };
  socket.onopen = () => { opened = true; };
  // where there is no connection, Node 20 and 22 fire error alone: no close follows
  socket.onerror = async ({ message }) => {
    if (!opened) end(own ? await whyNot() : message);
  };
  socket.onclose = ({ code, reason }) => {
    if (opened) end(code === 1006 ? 'the connection broke' : `closed: ${code} ${reason}`, code === 1008);
  };
}

start();

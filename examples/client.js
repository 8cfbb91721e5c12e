// A wspush client for Node (18 or later): prints each push as one line, and reconnects when the connection ends.
//
//     npm install ws && WSPUSH_SYSTEM=shop WSPUSH_PASSWORD='open sesame' node client.js
'use strict';
const Socket = globalThis.WebSocket ?? require('ws'); // Node 22 has one built in

const url = process.env.WSPUSH_URL ?? 'http://localhost:7800';
const system = process.env.WSPUSH_SYSTEM ?? 'shop';
const group = process.env.WSPUSH_GROUP ?? 'news';

// What the business system would do: only it knows the password. It keeps its token until an answer is 401.
let token = '';

async function call(path, body) {
  const response = await fetch(url + path, { method: 'POST', headers: { Token: token }, body: JSON.stringify(body) });
  const answer = await response.json();
  if (response.status === 401) return null;
  if (answer.code !== 0) throw new Error(answer.msg);
  return answer.data;
}

async function handOver(clientId) {
  const bind = { clientId, groupName: group, userId: 'node' };
  if (await call('/api/bind_to_group', bind)) return;
  ({ token } = await call('/api/login', { systemId: system, password: process.env.WSPUSH_PASSWORD }));
  if (!(await call('/api/bind_to_group', bind))) throw new Error('the new token is refused');
}

let delay = 1; // seconds before the next try, doubled each time

function start() {
  const socket = new Socket(url.replace('http', 'ws') + '/ws?systemId=' + encodeURIComponent(system));
  let heard = Date.now(), first = true, over = false;
  const watch = setInterval(() => {
    if (Date.now() - heard > 40000) end(1006); // not even a pong: the connection is dead
    else if (socket.readyState === 1) socket.send('ping'); // answered with the text pong
  }, 15000);

  function end(code) {
    if (over) return;
    over = true;
    clearInterval(watch);
    socket.close();
    if (code === 1008) {
      console.error('closed with 1008: the system is not registered');
      process.exitCode = 1;
      return;
    }
    const wait = delay * (0.5 + Math.random() / 2); // so that clients do not all reconnect at once
    console.error(`closed with ${code}, next try in ${wait.toFixed(1)} s`);
    setTimeout(start, wait * 1000);
    delay = Math.min(delay * 2, 30);
  }

  socket.onmessage = async ({ data }) => {
    heard = Date.now();
    if (over || data === 'pong') return;
    const frame = first && JSON.parse(data); // the first frame has our id, or the reason why we get none
    first = false;
    if (!frame || frame.code !== 0) return console.log(data);
    try {
      await handOver(frame.data.clientId);
      delay = 1;
    } catch (error) {
      console.error(error.message);
      end(1006);
    }
  };
  socket.onerror = () => {}; // onclose follows
  socket.onclose = ({ code }) => end(code);
}

start();

// wspush.js - a client of wspush for browsers and for Node: it keeps a connection, resumes its session when the
// connection breaks, and says so when it has missed something. A server has it at /wspush.js.
//
//   import { connect } from 'https://push.example.com/wspush.js';
//
//   const link = connect({
//     url: 'wss://push.example.com', // or https:, or ws: and http:
//     system: 'shop',
//     ticket: async () => …,         // called for each connection; without it, none has a ticket
//     onpush(message, text) {},      // a push or a notice: parsed, and as it was sent
//     onstate(state, detail) {},     // connecting; open: the first frame's data; waiting: code, reason, seconds;
//                                    // closed, for good: code, reason
//     onlost(data) {},               // back, but pushes are missing: reload what the page shows
//   });
//   link.send('a text');             // for the webhook of the system; false if there is no connection
//   link.close();
//
// Further options: maxWait (30), seconds; WebSocket, a class for a Node that has none.
//
// Session: both sides count the server's messages, except the first frame of a connection and `pong`. A connection
// that returns has the key of the session and the number received, and is sent the rest. The key is kept in memory: a
// tab that is duplicated must not take the session of the other.
//
// Time: browsers run the timers of a hidden page late, once a minute, and those of a suspended page not at all. So a
// timer only looks. What counts is the clock: how long a ping has waited for an answer, and whether a wait is over.
// Events by which a page learns that it has slept look at once.

const TICK = 5000;        // milliseconds between looks
const PING_AFTER = 15000; // of silence
const PONG_WITHIN = 10000;
const GRACE = 1000;       // for a pong that waits behind the look that finds it late
const ACK_AFTER = 10000;  // and a tick
const ACK_EVERY = 32;     // messages
const HEALTHY = 10000;    // milliseconds after which a connection was a good one
const DEAD_MAX = 8;
const WAKES = ['online', 'pageshow', 'visibilitychange'];

// After these closes it does not come back: an unknown system or a mistake of ours, another connection has taken over
// the session, and what the business system closes with.
const isFinal = code => code === 1000 || code === 1008 || code === 4409 || code >= 3000 && code < 4400 || code >= 4500;

// A callback that throws does not harm the connection.
function tell(callback, ...what) {
  try {
    callback?.(...what);
  } catch (error) {
    queueMicrotask(() => { throw error; });
  }
}

export function connect({ url, system, ticket, onpush, onstate, onlost, maxWait = 30, WebSocket = globalThis.WebSocket }) {
  const address = `${url.replace(/^http/, 'ws').replace(/\/$/, '')}/ws?systemId=${encodeURIComponent(system)}&resume=`;
  const dead = []; // sockets given up. A close frame would end the session, so they are closed when it has moved.
  let key = '', received = 0, acked = 0, ackedAt = 0, met = false; // the session
  let socket = null, opened = 0, heard = 0, asked = 0, late = 0; // times; 0: not yet, no ping waits, it is not late
  let tries = 0, due = 0, ticketAt = 0, timer = 0, over = false;

  function arm(wait) {
    clearTimeout(timer);
    timer = setTimeout(look, wait);
  }

  // Full jitter: clients do not come back all at once. Tickets are at least a second apart.
  function comeBack(code, reason) {
    const now = Date.now(), most = Math.min(maxWait * 1000, 500 * 2 ** tries++);
    due = Math.max(now + Math.random() * most, ticketAt + 1000);
    arm(due - now);
    tell(onstate, 'waiting', { code, reason, seconds: (due - now) / 1000 });
  }

  async function start() {
    due = 0;
    if (over) return;
    tell(onstate, 'connecting', {});
    try {
      if (ticket) ticketAt = Date.now();
      const pass = await ticket?.();
      if (!over) open(pass);
    } catch (error) {
      if (!over) comeBack(0, error.message);
    }
  }

  function open(pass) {
    const rest = (key && `&received=${received}`) + (pass ? `&ticket=${encodeURIComponent(pass)}` : '');
    const own = new WebSocket(address + key + rest);
    socket = own;
    opened = late = 0;
    asked = Date.now(); // the handshake is the first ping
    own.onmessage = ({ data }) => { if (own === socket) take(data); };
    own.onclose = ({ code, reason }) => { if (own === socket) end(code, reason); };
    own.onerror = ({ message = '' }) => { if (own === socket) end(1006, message); }; // in Node, no close follows
    arm(TICK);
  }

  function take(text) {
    heard = Date.now();
    if (!opened) return greet(JSON.parse(text));
    asked = 0;
    if (text === 'pong') return;
    if (++received - acked >= ACK_EVERY) ack();
    tell(onpush, JSON.parse(text), text);
  }

  // The first frame: the session, or a refusal, which a close follows.
  function greet({ code, data }) {
    if (code !== 0) return;
    const whole = data.resumed && data.recovered, lost = met && !whole;
    met = true;
    key = data.resume ?? '';
    if (!whole) received = 0;
    acked = received;
    opened = ackedAt = heard;
    asked = 0;
    while (dead.length) dead.pop().close();
    tell(onstate, 'open', data);
    if (lost) tell(onlost, data);
  }

  function ack() {
    acked = received;
    ackedAt = Date.now();
    if (key) socket.send('ack ' + received);
  }

  function end(code, reason) {
    socket = null;
    if (code === 1006) reason ||= opened ? 'the connection broke' : 'no connection';
    if (opened && Date.now() - opened >= HEALTHY) tries = 0;
    if (isFinal(code)) finish(code, reason);
    else comeBack(code, reason);
  }

  function giveUp() {
    if (socket.readyState === 0) socket.close(); // which sends nothing
    else if (dead.push(socket) > DEAD_MAX) dead.shift().close();
    end(1006, 'no answer to a ping');
  }

  // At each tick, and when the page wakes.
  function look(event) {
    const now = Date.now();
    if (due && event?.type === 'online') {
      tries = 0;
      due = Math.min(due, Math.max(now + Math.random() * 500, ticketAt + 1000));
    }
    if (due && due <= now) return start();
    if (due) return arm(due - now);
    arm(TICK);
    if (!socket) return;
    if (asked && now - asked >= PONG_WITHIN) {
      late ||= now;
      if (now - late >= GRACE) giveUp();
      else arm(GRACE);
    } else if (!asked) {
      if (received > acked && now - ackedAt >= ACK_AFTER) ack();
      if (!event && now - heard < PING_AFTER) return;
      asked = now;
      late = 0;
      socket.send('ping');
    }
  }

  function finish(code, reason) {
    const last = socket;
    over = true;
    socket = null;
    due = 0;
    clearTimeout(timer);
    for (const name of WAKES) globalThis.removeEventListener?.(name, look);
    for (const each of [last, ...dead]) each?.close(1000);
    tell(onstate, 'closed', { code, reason });
  }

  for (const name of WAKES) globalThis.addEventListener?.(name, look);
  queueMicrotask(start);
  return {
    send(text) {
      if (!opened || socket?.readyState !== 1) return false;
      socket.send(text);
      return true;
    },
    close() {
      if (!over) finish(1000, '');
    },
  };
}

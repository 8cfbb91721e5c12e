// client_module.mjs FILE [SEED] - tests /wspush.js with a clock, sockets, a page and a server that are all made up.
// client_module.sh gives it the file as the server sends it. Prints the seed of the random ones.
import { pathToFileURL } from 'node:url';

const { connect } = await import(pathToFileURL(process.argv[2]));
const seed = Number(process.argv[3] ?? Date.now() % 1000000);
let passed = 0, failed = 0;

function check(name, actual, wanted) {
  const [a, b] = [actual, wanted].map(each => JSON.stringify(each));
  console.log(a === b ? `ok   ${name}` : `FAIL ${name} (expected ${b}, got ${a})`);
  a === b ? passed++ : failed++;
}

// --- the clock and the page ---------------------------------------------------------------------

let now = 1e12, timers = [], random = () => 0.5, hidden = false, handlers = [];
const settle = () => new Promise(resolve => setImmediate(resolve)); // runs all microtasks
const realRandom = Math.random;
Date.now = () => now;
Math.random = () => random();
// A hidden page's timers run with the minute.
globalThis.setTimeout = (act, wait = 0) => {
  const timer = { act, at: now + Math.max(wait, 0) };
  timers.push(timer);
  return timer;
};
globalThis.clearTimeout = timer => { timers = timers.filter(each => each !== timer); };
globalThis.addEventListener = (name, act) => handlers.push({ name, act });
globalThis.removeEventListener = (name, act) => { handlers = handlers.filter(each => each.name !== name || each.act !== act); };
const due = timer => hidden ? Math.ceil(timer.at / 60000) * 60000 : timer.at;

// Goes on by so many milliseconds, with all timers in their order.
async function pass(wait) {
  const end = now + wait;
  await settle();
  for (;;) {
    const next = timers.reduce((best, each) => !best || due(each) < due(best) ? each : best, null);
    if (!next || due(next) > end) break;
    now = Math.max(now, due(next));
    clearTimeout(next);
    next.act();
    await settle();
  }
  now = end;
}

// Until there is another socket.
async function again() {
  const count = sockets.length;
  for (let i = 0; i < 100000 && sockets.length === count; i++) await pass(50);
}

// No timer runs: the page is suspended, or the computer sleeps.
const sleep = wait => { now += wait; };

function wake(...names) {
  for (const name of names) for (const each of handlers.filter(handler => handler.name === name)) each.act({ type: name });
}

// --- sockets ------------------------------------------------------------------------------------

let sockets = [];

class Socket {
  constructor(address) {
    if (!/^wss?:/.test(address)) throw new SyntaxError('no such address');
    this.address = new URL(address);
    this.query = Object.fromEntries(this.address.searchParams);
    this.at = now;
    this.readyState = 0;
    this.sent = [];
    sockets.push(this);
    Socket.onnew?.(this);
  }
  send(text) {
    if (this.readyState === 0) throw new Error('not open yet');
    if (this.readyState === 1) this.sent.push(text), this.onsent?.(text);
  }
  close(code = 1005) {
    if (this.readyState > 1) return;
    this.sent.push(this.readyState ? `close ${code}` : 'abort');
    this.readyState = 2;
    this.onsent?.(this.sent.at(-1));
  }
  // What the server does.
  gets(...texts) {
    this.readyState = 1;
    for (const text of texts) this.onmessage({ data: text });
  }
  ends(code, reason = '') {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose({ code, reason });
  }
}

// A server that answers pings.
const answers = socket => { socket.onsent = text => text === 'ping' && queueMicrotask(() => socket.gets('pong')); };

const first = data => JSON.stringify({ code: 0, msg: 'success', data: { clientId: 'c', ...data } });
const push = data => `{"code":7,"msg":"m","data":${data}}`;
const last = () => sockets.at(-1);

// A client, and what it has told.
async function begin(more = {}) {
  const all = { states: [], pushes: [], lost: [] };
  timers = [], sockets = [], handlers = [], hidden = false, random = () => 0.5, Socket.onnew = null;
  all.link = connect({
    url: 'ws://h', system: 'a b&c', WebSocket: Socket,
    onpush: (message, text) => all.pushes.push(message.data),
    onstate: (state, detail) => all.states.push({ state, ...detail }),
    onlost: data => all.lost.push(data),
    ...more,
  });
  await settle();
  return all;
}

// One that is connected, with the key K1.
async function beginOpen(more) {
  const all = await begin(more);
  last().gets(first({ resume: 'K1', linger: 60 }));
  return all;
}

const tests = {
  async addresses() {
    await begin({ ticket: async () => 'T/+' });
    check('the first address', last().address.href, 'ws://h/ws?systemId=a%20b%26c&resume=&ticket=T%2F%2B');
    await begin({ url: 'https://h/push/' });
    check('an address of a page, with a path, and without tickets', last().address.href, 'wss://h/push/ws?systemId=a%20b%26c&resume=');
    const all = await begin({ url: 'nonsense' });
    check('an address that is none', all.states.map(each => each.state), ['connecting', 'waiting']);
    all.link.close();
  },

  async counting() {
    const all = await beginOpen();
    const one = last();
    answers(one);
    one.gets(...Array.from({ length: 31 }, (none, i) => push(i)), 'pong');
    check('31 messages and a pong: no ack', one.sent, []);
    one.gets(push(31));
    check('the 32nd', one.sent, ['ack 32']);
    one.gets(push(32), '{"code":1001,"msg":"client online","data":{}}');
    await pass(15000);
    check('two more: within 15 s', one.sent.filter(each => /ack/.test(each)), ['ack 32', 'ack 34']);
    await pass(60000);
    check('no number twice', one.sent.filter(each => /ack/.test(each)), ['ack 32', 'ack 34']);
    one.gets(push(34));
    one.ends(1006);
    await again();
    check('the way back', [last().query.resume, last().query.received], ['K1', '35']);
    last().gets(first({ resume: 'K2', resumed: true, recovered: true, replay: 2 }), push(35), push(36));
    await pass(15000);
    check('after a replay the count goes on', last().sent.filter(each => /ack/.test(each)), ['ack 37']);
    last().ends(1006);
    await again();
    last().gets(first({ resume: 'K3', resumed: true, recovered: true, replay: 0 }));
    await pass(60000);
    check('nothing new: no ack', last().sent.filter(each => /ack/.test(each)), []);
    check('each push once', [all.pushes.length, all.lost.length], [37, 0]);
    last().ends(1006);
    await again();
    last().gets(first({ resume: 'K4', resumed: true, recovered: false, missed: 3 }), push(1));
    last().ends(1006);
    await again();
    check('after a gap it begins at 0', last().query.received, '1');
    last().gets(first({ resume: 'K5', resumed: false }), ...Array.from({ length: 32 }, (none, i) => push(i)));
    check('and so do acks', last().sent, ['ack 32']);
    last().ends(1006);
    await again();
    last().gets(first({}), ...Array.from({ length: 40 }, (none, i) => push(i)));
    check('a server that does not count gets none', last().sent, []);
    all.link.close();
  },

  async keys() {
    const all = await beginOpen();
    for (let i = 2; i < 302; i++) {
      last().ends(1006);
      await again();
      if (last().query.resume !== `K${i - 1}`) check(`resume ${i}`, last().query.resume, `K${i - 1}`);
      last().gets(first({ resume: `K${i}`, resumed: true, recovered: true, replay: 0 }));
    }
    check('300 resumes, each with the key of the one before', [sockets.length, all.lost.length], [301, 0]);
    last().gets(push(1));
    last().ends(1006);
    await again();
    last().readyState = 1; // the first frame is lost
    last().ends(1006);
    await again();
    check('a first frame that is lost: the same key and number', [last().query.resume, last().query.received], ['K301', '1']);
    all.link.close();
  },

  async lost() {
    for (const [name, data, lost] of [
      ['all there', { resume: 'K2', resumed: true, recovered: true, replay: 0 }, 0],
      ['a gap', { resume: 'K2', resumed: true, recovered: false, missed: 2 }, 1],
      ['a gap, on another node', { resume: 'K2', resumed: true, recovered: false, missed: 2, previous: 'c0' }, 1],
      ['on another node', { resume: 'K2', resumed: true, recovered: true, replay: 0, previous: 'c0' }, 0],
      ['a new session', { resume: 'K2', resumed: false }, 1],
      ['a server that resumes nothing', {}, 1],
    ]) {
      const all = await beginOpen();
      check(`${name}: nothing is missed at first`, all.lost, []);
      last().ends(1006);
      await again();
      last().gets(first(data));
      check(`${name}: onlost, with the first frame`, all.lost, Array(lost).fill({ clientId: 'c', ...data }));
      check(`${name}: onstate`, all.states.at(-1), { state: 'open', clientId: 'c', ...data });
      all.link.close();
    }
  },

  async jitter() {
    for (const share of [0, 0.5, 0.999999]) {
      const all = await begin();
      random = () => share;
      for (let i = 0; i < 12; i++) {
        last().ends(1006);
        await again();
      }
      const most = [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30], waits = all.states.filter(each => each.state === 'waiting');
      check(`waits, ${share} of the most`, waits.map(each => each.seconds.toFixed(2)), most.map(each => (each * share).toFixed(2)));
      check('it waits as long as it says', sockets.slice(1).every((each, i) => Math.abs(each.at - sockets[i].at - waits[i].seconds * 1000) <= 50), true);
      all.link.close();
    }
    const all = await begin({ maxWait: 1 });
    random = () => 0.999999;
    const ends = async wait => {
      last().gets(first({ resume: 'K' }));
      await pass(wait);
      last().ends(1006);
      const { seconds } = all.states.at(-1);
      await again();
      return seconds.toFixed(2);
    };
    const waits = [];
    for (const wait of [0, 9999, 9999, 10000, 0, 0]) waits.push(await ends(wait));
    check('only ten seconds of health begin anew; maxWait', waits, ['0.50', '1.00', '1.00', '0.50', '1.00', '1.00']);
    all.link.close();
  },

  async tickets() {
    let asked = [], inside = 0, most = 0, slow = 0;
    const ticket = async () => {
      asked.push(now);
      most = Math.max(most, ++inside);
      if (slow) await new Promise(resolve => setTimeout(resolve, slow));
      inside--;
      return `T${asked.length}`;
    };
    const all = await begin({ ticket });
    random = () => 0;
    Socket.onnew = socket => setTimeout(() => { socket.gets('{"code":-1002,"msg":"ticket expired","data":[]}'); socket.ends(4401, 'ticket expired'); }, 1);
    last().ends(4401);
    await pass(60000);
    check('refused ones: a new one each time', sockets.map(each => each.query.ticket), asked.map((none, i) => `T${i + 1}`));
    check('at least a second apart', asked.slice(1).every((each, i) => each - asked[i] >= 1000), true);
    check('and no more than that', asked.length > 50, true);
    slow = 3000, asked = [];
    for (let i = 0; i < 50; i++) {
      wake('online', 'visibilitychange', 'pageshow');
      await pass(500);
    }
    check('one at a time, whatever wakes the page', [most, asked.length], [1, asked.length]);
    check('slow ones', asked.length > 5 && asked.length < 10, true);
    all.link.close();
    const count = asked.length;
    await pass(60000);
    check('none after close()', asked.length, count);

    const refused = await begin({ ticket: async () => { throw new Error('nobody is logged in'); } });
    check('no ticket: why', refused.states.map(each => each.reason).filter(Boolean), ['nobody is logged in']);
    await pass(120000);
    check('it goes on asking', refused.states.filter(each => each.state === 'waiting').length > 5, true);
    refused.link.close();
  },

  async hidden_page() {
    const all = await beginOpen();
    hidden = true;
    let pongs = 0;
    const one = last();
    one.onsent = text => text === 'ping' && queueMicrotask(() => { pongs++; one.gets('pong'); });
    await pass(600000);
    wake('visibilitychange');
    check('ten minutes with a timer a minute', [sockets.length, pongs >= 9, timers.length], [1, true, 1]);
    one.gets(push(1));
    await pass(70000);
    check('an ack', one.sent.includes('ack 1'), true);
    one.onsent = null;
    await pass(180000);
    check('a server that is silent is found out', all.states.map(each => each.reason).filter(Boolean), ['no answer to a ping']);
    all.link.close();
  },

  async suspended_page() {
    const all = await beginOpen();
    const one = last();
    await pass(20000);
    check('a ping after 15 s of silence', one.sent, ['ping']);
    sleep(600000);
    wake('visibilitychange', 'pageshow', 'online');
    await settle();
    one.gets('pong'); // it has waited, like the timers
    await pass(2000);
    check('a pong that waits counts', [sockets.length, one.sent.length, one.readyState], [1, 1, 1]);
    wake('pageshow', 'visibilitychange');
    check('a page that wakes asks at once, and once', one.sent, ['ping', 'ping']);
    await pass(9000);
    check('an answer has ten seconds', one.sent.length, 2);
    await pass(4000);
    check('not more', all.states.slice(2).map(each => `${each.state} ${each.code ?? ''} ${each.reason ?? ''}`), ['waiting 1006 no answer to a ping', 'connecting  ']);
    check('a close frame would end the session: none is sent', one.sent, ['ping', 'ping']);
    one.gets(push('"late"'));
    one.ends(4409);
    check('what the dead link says counts no more', [all.pushes.length, last().query.received], [0, '0']);
    const count = sockets.length;
    sleep(60000);
    wake('pageshow', 'visibilitychange');
    last().gets(first({ resume: 'K2', resumed: true, recovered: true, replay: 0 }));
    check('so does a first frame that waits', [all.states.at(-1).state, sockets.length], ['open', count]);
    all.link.close();
  },

  async dead_links() {
    const all = await beginOpen();
    const one = last();
    await pass(40000);
    check('no answer to a ping, no answer to a handshake: nothing that ends a session', [sockets.length, one.sent, sockets[1].sent], [3, ['ping'], ['abort']]);
    last().readyState = 1; // an answer without a first frame
    for (let i = 0; i < 20; i++) {
      await pass(45000);
      if (last().readyState === 0) last().readyState = 1;
    }
    const open = sockets.filter(each => each.readyState === 1).length;
    check('few of them are kept', open > 4 && open < 11, true);
    await again();
    last().gets(first({ resumed: false, resume: 'K9' }));
    check('they are closed when the session has moved', sockets.filter(each => each.readyState === 1).length, 1);
    all.link.close();
    check('so is all by close()', sockets.filter(each => each.readyState < 2).length, 0);
  },

  async closes() {
    for (const [code, back] of [[1000, 0], [1008, 0], [4409, 0], [3000, 0], [4001, 0], [4399, 0], [4500, 0], [4999, 0],
      [1001, 1], [1003, 1], [1006, 1], [1009, 1], [1011, 1], [1012, 1], [1013, 1], [4400, 1], [4401, 1]]) {
      const all = await beginOpen();
      last().ends(code, 'why');
      check(`close ${code}: ${back ? 'comes back' : 'is final'}`, [all.states.at(-1).state, all.states.at(-1).code, all.states.at(-1).reason], [back ? 'waiting' : 'closed', code, 'why']);
      await pass(60000);
      wake('online', 'pageshow');
      await pass(60000);
      if (!back) check(`close ${code}: nothing is left`, [sockets.length, timers.length, handlers.length, all.link.send('x')], [1, 0, 0, false]);
      all.link.close();
    }
    const all = await begin();
    last().gets('{"code":-1007,"msg":"Redis does not answer","data":[]}');
    check('a refusal is no push, and no connection', [all.pushes, all.states.length], [[], 1]);
    last().ends(1013, 'try again later');
    await pass(500);
    check('after it', [last().query.resume, last().query.received], ['', undefined]);
    last().gets('{"code":-1007,"msg":"","data":[]}');
    await pass(20000);
    check('a refusal without a close', all.states.at(-2).reason, 'no answer to a ping');
    all.link.close();
  },

  async ending() {
    const all = await beginOpen();
    const { link } = all, one = last();
    check('send()', [link.send('hello'), one.sent], [true, ['hello']]);
    link.close();
    link.close();
    check('close() says so to the server', one.sent, ['hello', 'close 1000']);
    one.gets(push(1));
    one.ends(1000);
    await pass(60000);
    check('then nothing happens', [sockets.length, timers.length, handlers.length, all.pushes.length, all.states.filter(each => each.state === 'closed').length], [1, 0, 0, 0, 1]);
    check('send() behind it', link.send('x'), false);

    const early = await begin();
    check('send() before the first frame', early.link.send('x'), false);
    early.link.close();
    check('close() before it', [last().sent, early.states.length], [['abort'], 2]);

    let give;
    const waiting = await begin({ ticket: () => new Promise(resolve => { give = resolve; }) });
    waiting.link.close();
    give('T');
    await pass(60000);
    check('close() before there is a ticket', sockets.length, 0);
    const refused = await begin({ ticket: () => new Promise((none, reject) => { give = reject; }) });
    refused.link.close();
    give(new Error('none'));
    await pass(60000);
    check('close() before there is none', refused.states.map(each => each.state), ['connecting', 'closed']);

    const states = [];
    connect({ url: 'ws://h', system: 's', WebSocket: Socket, onstate: state => states.push(state) }).close();
    await pass(60000);
    check('close() at once', states, ['closed']);

    const inside = await begin({ onstate: state => state === 'waiting' && inside.link.close() });
    last().ends(1006);
    await pass(60000);
    check('close() in a callback', [sockets.length, timers.length], [1, 0]);
  },

  async callbacks() {
    const errors = [], hear = error => errors.push(error.message);
    process.on('uncaughtException', hear);
    const throws = () => { throw new Error('mine'); };
    const all = await beginOpen({ onpush: throws, onstate: throws, onlost: throws });
    for (let i = 0; i < 32; i++) last().gets(push(i));
    check('what a callback throws harms nothing', last().sent, ['ack 32']);
    last().ends(1006);
    await again();
    last().gets(first({ resume: 'K2', resumed: false }));
    await settle();
    check('but is told', [errors.length > 35, ...new Set(errors)], [true, 'mine']);
    all.link.close();
    await settle();
    process.off('uncaughtException', hear);
    const bare = await beginOpen({ onpush: undefined, onstate: undefined, onlost: undefined });
    last().gets(push(1));
    last().ends(1006);
    await pass(500);
    check('none is needed', sockets.length, 2);
    bare.link.close();
  },

  async networks() {
    const all = await begin();
    for (let i = 0; i < 10; i++) {
      last().onerror({ message: 'connect ECONNREFUSED' }); // Node: no close follows
      if (i < 9) await again();
    }
    check('an error is an end', [all.states.at(-1).code, all.states.at(-1).reason], [1006, 'connect ECONNREFUSED']);
    await again();
    last().onclose({ code: 1006, reason: '' });
    check('one without a reason', all.states.at(-1).reason, 'no connection');
    await again();
    last().gets(first({ resume: 'K1' }));
    last().ends(1006);
    check('one without a reason, of a connection', all.states.at(-1).reason, 'the connection broke');
    check('it waits by now', all.states.at(-1).seconds, 15);
    wake('visibilitychange');
    await pass(1000);
    check('who looks at the page need not be hasty', sockets.length, 12);
    wake('online');
    await pass(500);
    check('a network that is back is tried within half a second', sockets.length, 13);
    last().ends(1006);
    sleep(3000);
    wake('visibilitychange');
    await settle();
    check('a wait that is over while no timer ran', sockets.length, 14);
    all.link.close();
  },

  // A server as chapter "Nothing missed" has it, a network that loses what is under way, and pages that sleep.
  async model() {
    const order = makeRandom(seed);
    let sessions = [], pushed = 0, wrong = [], gaps = 0, resumed = 0, replayed = 0, next = 0;
    const seen = [];
    const all = await begin({
      onpush: ({ data }) => { seen.push(data); },
      onlost: () => { gaps++; seen.push('lost'); },
    });
    random = order;
    const kept = 128;
    // Frames arrive one by one, as `deliver` says.
    function attach(socket) {
      const { resume, received } = socket.query;
      const n = Number(received);
      let session = sessions.find(each => resume && (each.key === resume || each.before === resume)), data;
      socket.wire = [];
      if (session && resume) {
        session.socket?.cut();
        // each key has its own count, for the first frame that says so may be lost
        const base = resume === session.key ? session.base : session.baseBefore;
        const missed = session.sent - base - n, whole = missed <= session.ring.length;
        if (missed < 0) wrong.push(`received ${n} of ${session.sent - base}`);
        Object.assign(session, { before: resume, baseBefore: base, key: `K${++next}`, base: whole ? base : session.sent });
        data = whole ? { resumed: true, recovered: true, replay: missed } : { resumed: true, recovered: false, missed };
        socket.wire.push(first({ resume: session.key, ...data }));
        if (whole) socket.wire.push(...session.ring.slice(session.ring.length - missed));
        else session.ring = [];
        resumed++;
        replayed += whole ? missed : 0;
      } else {
        session = { key: `K${++next}`, base: 0, sent: 0, ring: [] };
        sessions = [session];
        data = resume ? { resumed: false } : {};
        socket.wire.push(first({ resume: session.key, ...data }));
      }
      session.socket = socket;
      socket.cut = () => { session.socket = session.socket === socket ? null : session.socket; socket.over = true; };
      socket.onsent = text => {
        if (socket.over) return;
        session.before = ''; // the first message: the key before is worth nothing
        if (text === 'ping') socket.wire.push('pong');
        const number = /^ack (\d+)$/.exec(text)?.[1];
        const left = session.sent - session.base - number;
        if (left < 0) wrong.push(`${text}, and ${-left} more than there were`);
        if (number && left < session.ring.length) session.ring = session.ring.slice(session.ring.length - left);
        if (/^close/.test(text)) wrong.push('a close frame'), sessions = [];
      };
    }
    Socket.onnew = attach;
    attach(last());
    const deliver = count => {
      const socket = last();
      while (!socket.over && socket.wire.length && count-- && socket.readyState < 2) socket.gets(socket.wire.shift());
    };
    const sendOne = () => {
      const [session] = sessions, text = push(++pushed);
      if (!session) return;
      session.sent++;
      session.ring.push(text);
      if (session.ring.length > kept) session.ring.shift();
      if (session.socket) session.socket.wire.push(text);
    };
    for (let step = 0; step < 30000; step++) {
      const dice = order();
      if (dice < 0.45) sendOne();
      else if (dice < 0.85) deliver(1 + Math.floor(order() * 3));
      else if (dice < 0.93) await pass(order() * 200);
      else if (dice < 0.985) wake(['online', 'pageshow', 'visibilitychange'][step % 3]);
      else if (dice < 0.995) { last().cut(); last().ends(1006); await pass(1000); }
      else if (dice < 0.998) { sleep(order() * 100000); wake('pageshow'); await settle(); } // what waits is delivered, or it is dead
      else if (dice < 0.9987) await pass(30000); // the server stands still
      else if (dice < 0.9995) { last().cut(); await pass(30000); } // a cable is cut: nobody tells
      else { sessions = []; last().cut(); last().ends(1006); await pass(1000); } // a server that restarts
    }
    for (let i = 0; i < 10; i++) {
      await pass(3000);
      deliver(1e6);
    }
    sendOne();
    deliver(1e6);
    let expected = 0; // any: what was sent before a page was connected is not missing
    for (const each of seen) {
      if (each === 'lost') expected = 0;
      else if (expected && each !== expected) wrong.push(`push ${each}, not ${expected}`), expected = each + 1;
      else expected = each + 1;
    }
    check(`seed ${seed}: each push once and in order, or onlost`, wrong.slice(0, 3), []);
    check('the last one has come', seen.at(-1), pushed);
    check('much has happened', [resumed > 50, replayed > 100, gaps > 0, seen.length > 5000], [true, true, true, true]);
    all.link.close();
  },
};

function makeRandom(state) { // xorshift
  let x = state * 2654435761 >>> 0 || 1;
  return () => {
    x ^= x << 13, x >>>= 0;
    x ^= x >>> 17;
    x ^= x << 5, x >>>= 0;
    return x / 2 ** 32;
  };
}

for (const name in tests) await tests[name]();
console.log(`${passed} passed, ${failed} failed`);
process.exit(+(failed > 0));

// Pushes from a backend in Node (18 or later): each line of its input goes to the clients in a group.
//
//     echo hello | PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' node push.js news
//
// client.js uses call() as well.
'use strict';
const url = process.env.PUSH_URL || 'http://127.0.0.1:7800';
const system = process.env.PUSH_SYSTEM || 'shop';
const password = process.env.PUSH_PASSWORD;

function stop(message) {
  console.error(message);
  process.exit(2);
}

if (typeof fetch !== 'function') stop(`This is Node ${process.versions.node}; 18 or later is needed.`);
if (!password) stop(`Set PUSH_PASSWORD to the password of the system ${system}.`);

let token = ''; // of the last login: good until an answer is 401

async function post(path, body) {
  const response = await fetch(url + path, {
    method: 'POST', headers: { Token: token }, body: JSON.stringify(body), signal: AbortSignal.timeout(10000),
  });
  return { status: response.status, answer: await response.json() };
}

// What a failed fetch() knows is in the cause of its error.
function reason(error) {
  return error.cause?.message || error.cause?.code || error.message;
}

function check(path, answer) {
  if (answer.code === 0) return answer.data;
  throw Object.assign(new Error(`${path}: ${answer.msg} (${answer.code})`), { code: answer.code });
}

// Returns the data of the answer.
async function call(path, body) {
  let { status, answer } = await post(path, body);
  if (status === 401) { // no token yet, or it has expired
    const login = await post('/api/login', { systemId: system, password });
    ({ token } = check('/api/login', login.answer));
    ({ answer } = await post(path, body));
  }
  return check(path, answer);
}

async function main(group) {
  if (!group) stop('Usage: push.js GROUP <LINES');
  for await (const line of require('readline').createInterface({ input: process.stdin })) {
    try {
      const message = { groupName: group, code: 7, msg: 'line', data: line, receipt: true };
      const receipt = await call('/api/send_to_group', message);
      console.log(`queued for ${receipt.queued} client(s)`);
    } catch (error) {
      console.error(reason(error));
    }
  }
}

module.exports = { url, system, call, reason, stop };
if (require.main === module) main(process.argv[2]);

<?php
// A business system in PHP (7.4 or later, no extension to install): serves browser.html, gets a ticket for each page, and
// receives webhooks: it hears who comes, goes and speaks, knows who is online, and answers.
//
//     PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' PUSH_SECRET=whsec_... php -S 127.0.0.1:8000 business.php
//
// Then open http://localhost:8000/, and http://localhost:8000/online for who is there. Only this program knows the
// password, says which user a page belongs to, and decides which groups it joins. Without PUSH_SECRET, which is what
// /api/set_webhook has answered, it takes no events.
//
// PHP keeps nothing from one request to the next, so what it knows is in a file beside the token. With many clients, take
// tables of a database: one of clients, and one of nodes.

function stop(string $message): void {
    http_response_code(500); // where it serves pages
    error_log($message);
    exit(2);
}

define('URL', getenv('PUSH_URL') ?: 'http://127.0.0.1:7800');
define('SYSTEM', getenv('PUSH_SYSTEM') ?: 'shop');
define('PASSWORD', getenv('PUSH_PASSWORD') ?: '');
if (PASSWORD === '') stop('Set PUSH_PASSWORD to the password of the system ' . SYSTEM . '.');

// Only this user may read the token: it is all that a push needs.
umask(0077);
function token_file(): string {
    $folder = getenv('PUSH_TOKENS') ?: sys_get_temp_dir() . '/push-tokens-' . posix_geteuid();
    if (!is_dir($folder)) mkdir($folder);
    if (fileowner($folder) !== posix_geteuid()) stop("$folder belongs to another user: set PUSH_TOKENS to a folder of yours.");
    return $folder . '/' . hash('sha256', URL . ' ' . SYSTEM);
}

function post(string $path, array $body, string $token): array {
    $text = @file_get_contents(URL . $path, false, stream_context_create(['http' => [
        'method' => 'POST', 'header' => "Content-Type: application/json\r\nToken: $token",
        'content' => json_encode($body, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE),
        'timeout' => 10, 'ignore_errors' => true, // an answer of 4xx or 5xx has a body as well
    ]]));
    if ($text === false) throw new RuntimeException(error_get_last()['message']);
    return json_decode($text, true, 512, JSON_THROW_ON_ERROR);
}

// Returns the data of the answer.
function call(string $path, array $body) {
    $file = token_file();
    $answer = post($path, $body, (string) @file_get_contents($file));
    if ($answer['code'] === -1002) { // HTTP 401: no token yet, or it has expired
        $login = post('/api/login', ['systemId' => SYSTEM, 'password' => PASSWORD], '');
        if ($login['code'] !== 0) throw new RuntimeException("/api/login: $login[msg] ($login[code])", $login['code']);
        file_put_contents($file, $login['data']['token'], LOCK_EX);
        $answer = post($path, $body, $login['data']['token']);
    }
    if ($answer['code'] !== 0) throw new RuntimeException("$path: $answer[msg] ($answer[code])", $answer['code']);
    return $answer['data'];
}

define('GROUP', getenv('PUSH_GROUP') ?: 'news');
define('SECRET', base64_decode(str_replace('whsec_', '', (string) getenv('PUSH_SECRET'))));

// Whether a request is from wspush, and not an old one sent again: https://www.standardwebhooks.com/.
function is_signed(string $body): bool {
    $name = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $when = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if (SECRET === '' || !ctype_digit($when) || abs(time() - (int) $when) > 300) return false;
    $good = 'v1,' . base64_encode(hash_hmac('sha256', "$name.$when.$body", SECRET, true));
    // for a day after the secret was changed, there are two signatures
    foreach (explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '') as $one)
        if (hash_equals($good, $one)) return true;
    return false;
}

// Who is online, by the four rules of docs/api.md. Numbers of events are arrays of epoch and seq, which PHP compares as
// such. One request at a time has the file.
class Online {
    private $file;
    private $heard = []; // node => the number of its last event
    private $listed = []; // node => the number of its last event that the list takes account of
    private $clients = []; // clientId => its node, its epoch, its userId

    function __construct() {
        $this->file = fopen(token_file() . '.online', 'c+');
        flock($this->file, LOCK_EX);
        // a file that is new, or broken, has heard nothing
        [$this->heard, $this->listed, $this->clients] =
            json_decode((string) stream_get_contents($this->file), true) ?? [[], [], []];
    }

    function save(): void {
        ftruncate($this->file, 0);
        rewind($this->file);
        fwrite($this->file, json_encode([$this->heard, $this->listed, $this->clients]));
        fclose($this->file);
    }

    // Takes the events of a request. After an exception, which says why it cannot, wspush sends them again.
    function take(array $batch): void {
        foreach ($batch['events'] as $event)
            $this->hear($batch['node'], [$batch['epoch'], $event['seq']], $event);
    }

    private function hear(string $node, array $number, array $event): void {
        [$epoch, $seq] = $number;
        if ($number <= ($this->heard[$node] ?? [0, 0])) return; // rule 1: it was here before
        if ($event['type'] === 'start') {
            $this->forget($node, $epoch - 1); // rule 2
            $missed = $event['lost'] > 0;
        } else {
            $missed = ($this->heard[$node] ?? null) !== [$epoch, $seq - 1] || // or it has moved here, and
                isset($event['previous']) && !isset($this->clients[$event['previous']]); // its old node has yet to tell of it
        }
        if ($missed || !$this->heard) {
            $this->list(); // rule 3
            if (($this->listed[$node] ?? [0, 0]) < $number)
                throw new RuntimeException("the other nodes do not list $node yet");
        }
        if ($event['type'] === 'message') // which no list has
            answer($event, "$epoch.$seq");
        elseif ($number > ($this->listed[$node] ?? [0, 0]))
            $this->apply($node, $epoch, $event);
        $this->heard[$node] = $number;
    }

    private function apply(string $node, int $epoch, array $event): void {
        if ($event['type'] === 'end') { // rule 2, also for what comes late of these epochs
            $this->forget($event['node'], $event['epoch']);
            $this->listed[$event['node']] = max($this->listed[$event['node']] ?? [0, 0], [$event['epoch'] + 1, 0]);
        } elseif ($event['type'] === 'disconnect') {
            unset($this->clients[$event['clientId']]);
        } elseif ($event['type'] === 'connect' || $event['type'] === 'join' && isset($this->clients[$event['clientId']])) {
            unset($this->clients[$event['previous'] ?? '']); // it has moved here, and has no disconnect
            $this->clients[$event['clientId']] = [$node, $epoch, $event['userId']]; // a bind may have changed the user
        }
    }

    // Forgets the clients of a node that are of this epoch or older.
    private function forget(string $node, int $epoch): void {
        $this->clients = array_filter($this->clients, fn($client) => $client[0] !== $node || $client[1] > $epoch);
    }

    // Gets the clients of all nodes, as they are now.
    private function list(): void {
        $clients = $listed = [];
        for ($after = null; $after !== ''; $after = $page['next']) {
            $page = call('/api/list_clients', ['after' => (string) $after, 'limit' => 1000]);
            if (isset($page['incomplete'])) throw new RuntimeException('a node cannot be asked for its clients');
            foreach ($page['seen'] ?? [] as $seen) { // of the node whose clients are in the page
                $listed[$seen['node']] ??= [$seen['epoch'], $seen['seq']]; // that of its first page
                foreach ($page['clients'] as $client)
                    $clients[$client['clientId']] = [$seen['node'], $seen['epoch'], $client['userId']];
            }
        }
        [$this->clients, $this->listed] = [$clients, $listed];
    }

    // The ids of the clients of each user that is online: rule 4. Those without a user are under ''.
    function users(): array {
        if (!$this->heard) $this->list(); // there has been no event yet
        $users = [];
        foreach ($this->clients as $id => [, , $user])
            $users[$user][] = (string) $id; // PHP makes integers of keys that have digits only
        return $users;
    }
}

// Answers what a client says; once, even if the event comes again after a crash of this program.
function answer(array $event, string $name): void {
    try {
        call('/api/send_to_client', ['clientId' => $event['clientId'], 'code' => 7, 'msg' => 'answer',
            'data' => "You said: $event[text]", 'messageId' => $name, 'once' => true]);
    } catch (RuntimeException $error) {
        if ($error->getCode() !== -1003) throw $error; // it has gone, and needs no answer
    }
}

function reply(int $status, string $body = '', string $kind = 'text/plain'): void {
    http_response_code($status);
    header("Content-Type: $kind; charset=utf-8");
    header('Cache-Control: no-store');
    echo $body;
}

function take_events(): void {
    $body = file_get_contents('php://input');
    if (!is_signed($body)) {
        reply(401);
        return;
    }
    $online = new Online();
    try {
        $online->take(json_decode($body, true));
        reply(200);
    } finally {
        $online->save();
    }
}

function give_ticket(): void {
    if (($_SERVER['HTTP_SEC_FETCH_SITE'] ?? 'same-origin') !== 'same-origin')
        reply(403); // another site's page asks, with the cookies of our user
    else // a real one would know from its own login who this is
        reply(200, call('/api/ticket', ['userId' => 'browser', 'groups' => [GROUP]])['ticket']);
}

function serve(string $request): void {
    switch ($request) {
        case 'GET /':
            reply(200, file_get_contents(__DIR__ . '/browser.html'), 'text/html');
            break;
        case 'GET /wspush.js':
            reply(200, file_get_contents(__DIR__ . '/../wspush.js'), 'text/javascript');
            break;
        case 'GET /online': // a real one would not tell everybody
            reply(200, json_encode((object) (new Online())->users()), 'application/json');
            break;
        case 'POST /ticket':
            give_ticket();
            break;
        case 'POST /events':
            take_events();
            break;
        default:
            reply(404);
    }
}

try {
    serve($_SERVER['REQUEST_METHOD'] . ' ' . strtok($_SERVER['REQUEST_URI'], '?'));
} catch (Exception $error) { // wspush sends events again that were not taken
    error_log($error->getMessage());
    reply(503, 'the business system cannot ask wspush');
}

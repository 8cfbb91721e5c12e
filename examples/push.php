<?php
// Pushes from a backend in PHP (7.4 or later, no extension to install): each line of its input goes to the clients in a group.
//
//     echo hello | PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' php push.php news
//
// A PHP process often serves one request and ends, so the token is kept in a file. A cache such as APCu does as well.
// business.php has the same call().

function stop(string $message): void {
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

if ($argc !== 2) stop('Usage: push.php GROUP <LINES');
while (($line = fgets(STDIN)) !== false) {
    try {
        $receipt = call('/api/send_to_group', ['groupName' => $argv[1], 'code' => 7, 'msg' => 'line',
            'data' => rtrim($line, "\n"), 'receipt' => true]);
        echo "queued for $receipt[queued] client(s)\n";
    } catch (Exception $error) {
        fwrite(STDERR, $error->getMessage() . "\n");
    }
}

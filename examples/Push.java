import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.ConnectException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Pushes from a backend in Java (11 or later, no library): each line of its input goes to the clients in a group.
 *
 *     echo hello | PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' java Push.java news
 *
 * A real one would take its JSON library; this one writes JSON itself, and looks for two fields of the answers.
 */
public class Push {
    static final String URL = setting("PUSH_URL", "http://127.0.0.1:7800");
    static final String SYSTEM = setting("PUSH_SYSTEM", "shop");
    static final String PASSWORD = setting("PUSH_PASSWORD", "");
    static final Pattern TOKEN = Pattern.compile("\"token\":\"([^\"]+)\""), QUEUED = Pattern.compile("\"queued\":(\\d+)");
    static final HttpClient HTTP = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1)
            .connectTimeout(Duration.ofSeconds(10)).build();

    static String token = ""; // of the last login: good until an answer is 401

    static String setting(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    static void stop(String message) {
        System.err.println(message);
        System.exit(2);
    }

    static String quote(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray())
            json.append(c == '"' || c == '\\' ? "\\" + c : c < ' ' ? String.format("\\u%04x", (int) c) : String.valueOf(c));
        return json.append('"').toString();
    }

    static HttpResponse<String> post(String path, String body) throws IOException, InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(URL + path)).timeout(Duration.ofSeconds(10))
                .POST(HttpRequest.BodyPublishers.ofString(body));
        if (!token.isEmpty()) request.header("Token", token);
        return HTTP.send(request.build(), HttpResponse.BodyHandlers.ofString());
    }

    static String field(Pattern pattern, String path, String answer) throws IOException {
        Matcher found = pattern.matcher(answer);
        if (!found.find()) throw new IOException(path + ": " + answer);
        return found.group(1);
    }

    /** Returns the answer. */
    static String call(String path, String body) throws IOException, InterruptedException {
        HttpResponse<String> response = post(path, body);
        if (response.statusCode() == 401) { // no token yet, or it has expired
            String login = "{\"systemId\":" + quote(SYSTEM) + ",\"password\":" + quote(PASSWORD) + "}";
            token = field(TOKEN, "/api/login", post("/api/login", login).body());
            response = post(path, body);
        }
        return response.body();
    }

    public static void main(String[] arguments) throws Exception {
        if (PASSWORD.isEmpty()) stop("Set PUSH_PASSWORD to the password of the system " + SYSTEM + ".");
        if (SYSTEM.indexOf('\ufffd') >= 0) stop("Java cannot read PUSH_SYSTEM in this locale: set LC_ALL=C.UTF-8.");
        if (arguments.length != 1) stop("Usage: Push.java GROUP <LINES");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = input.readLine()) != null;) {
            try {
                String answer = call("/api/send_to_group", "{\"groupName\":" + quote(arguments[0])
                        + ",\"code\":7,\"msg\":\"line\",\"data\":" + quote(line) + ",\"receipt\":true}");
                System.out.println("queued for " + field(QUEUED, "/api/send_to_group", answer) + " client(s)");
            } catch (ConnectException error) { // has no text
                System.err.println("cannot connect to " + URL);
            } catch (IOException error) {
                System.err.println(error.getMessage());
            }
        }
    }
}

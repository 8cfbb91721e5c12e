// A wspush client in Go: prints each push as one line; reconnects, and resumes its session.
//
//	PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' go run .
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

var base, system, group = setting("PUSH_URL", "http://127.0.0.1:7800"), setting("PUSH_SYSTEM", "shop"), setting("PUSH_GROUP", "news")
var password, longest = setting("PUSH_PASSWORD", ""), setting("PUSH_MAX_WAIT", "30")

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func stop(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(2)
}

// envelope is the form of every answer and every frame.
type envelope struct {
	Code int64
	Msg  string
	Data json.RawMessage
}

// refused is a code of the server's other than 0.
type refused struct {
	path string
	envelope
}

func (err refused) Error() string {
	return fmt.Sprintf("%s: %s (%d)", err.path, err.Msg, err.Code)
}

// post, call and ticket are what the business system would do: only it knows the password. It keeps its token until
// an answer is 401.
var token string
var client = &http.Client{Timeout: 10 * time.Second}

func post(path string, body any) (int, json.RawMessage, error) {
	text, _ := json.Marshal(body)
	request, err := http.NewRequest("POST", base+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Token", token)
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	var answer envelope
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return 0, nil, err
	}
	if answer.Code != 0 {
		return response.StatusCode, nil, refused{path, answer}
	}
	return response.StatusCode, answer.Data, nil
}

func call(path string, body any) (json.RawMessage, error) {
	status, data, err := post(path, body)
	if status != http.StatusUnauthorized {
		return data, err
	}
	_, data, err = post("/api/login", map[string]string{"systemId": system, "password": password})
	if err != nil {
		return nil, err
	}
	var login struct{ Token string }
	if err := json.Unmarshal(data, &login); err != nil {
		return nil, err
	}
	token = login.Token
	_, data, err = post(path, body)
	return data, err
}

// ticket gets one, which is good for a minute.
func ticket() (string, error) {
	data, err := call("/api/ticket", map[string]any{"userId": "go", "groups": []string{group}})
	if err != nil {
		return "", err
	}
	var got struct{ Ticket string }
	err = json.Unmarshal(data, &got)
	return got.Ticket, err
}

// The session: both sides count the messages, except the first one of a connection.
var key string
var received atomic.Int64

// ack says how many there were.
func ack(ctx context.Context, socket *websocket.Conn, count int64) {
	if key != "" { // a write that fails is a read that fails
		_ = socket.Write(ctx, websocket.MessageText, []byte("ack "+strconv.FormatInt(count, 10)))
	}
}

// watch pings the server until a ping is not answered, which is an error, or the connection has ended.
func watch(ctx context.Context, socket *websocket.Conn) error {
	for acked := received.Load(); ; {
		limit, done := context.WithTimeout(ctx, 10*time.Second)
		err := socket.Ping(limit)
		late := limit.Err() == context.DeadlineExceeded
		done()
		if late {
			return errors.New("no answer to a ping")
		}
		if err != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(15 * time.Second):
			if count := received.Load(); count != acked {
				acked = count
				ack(ctx, socket, count)
			}
		}
	}
}

// greet takes the first frame: it has our id, or the reason why we get none, which a close follows.
func greet(text []byte) (bool, error) {
	var frame envelope
	if err := json.Unmarshal(text, &frame); err != nil {
		return false, err
	}
	if frame.Code != 0 {
		fmt.Fprintln(os.Stderr, frame.Msg)
		return false, nil
	}
	var data struct {
		Resume    string
		Recovered bool
		Replay    int
	}
	if err := json.Unmarshal(frame.Data, &data); err != nil {
		return false, err
	}
	if data.Recovered {
		fmt.Fprintf(os.Stderr, "resumed, %d replayed\n", data.Replay)
	} else {
		fmt.Fprintln(os.Stderr, "connected, in the group", group)
		if key != "" {
			fmt.Fprintln(os.Stderr, "pushes are missing")
		}
		received.Store(0)
	}
	key = data.Resume // another one each time
	return true, nil
}

// read prints the pushes.
func read(ctx context.Context, socket *websocket.Conn) error {
	for {
		_, text, err := socket.Read(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", text)
		if count := received.Add(1); count%32 == 0 {
			ack(ctx, socket, count)
		}
	}
}

// stay runs one connection until it ends.
func stay(ready func()) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dial, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	// QueryEscape makes a plus of a space, which a name may have as well: %20 is a space everywhere
	name := strings.ReplaceAll(url.QueryEscape(system), "+", "%20")
	pass, err := ticket()
	if err != nil {
		return err
	}
	// in a header, because addresses end up in the logs of proxies
	options := &websocket.DialOptions{HTTPHeader: http.Header{"Ticket": {pass}}}
	address := strings.Replace(base, "http", "ws", 1) + "/ws?systemId=" + name + "&resume=" + key
	if key != "" {
		address += "&received=" + strconv.FormatInt(received.Load(), 10)
	}
	socket, _, err := websocket.Dial(dial, address, options)
	if err != nil {
		return err
	}
	defer socket.CloseNow() // without a close frame, which would end the session
	socket.SetReadLimit(-1) // the server is trusted: a push may be as long as its max_body
	_, first, err := socket.Read(dial)
	if err != nil {
		return err
	}
	good, err := greet(first)
	if err != nil {
		return err
	}
	if good {
		ready()
	}
	silent := make(chan error, 1)
	go func() {
		silent <- watch(ctx, socket)
		cancel()
	}()
	err = read(ctx, socket)
	cancel()
	if late := <-silent; late != nil {
		return late
	}
	return err
}

func main() {
	if password == "" {
		stop("Set PUSH_PASSWORD to the password of the system " + system + ".")
	}
	maxWait, err := strconv.ParseFloat(longest, 64)
	if err != nil {
		stop("PUSH_MAX_WAIT must be a number of seconds.")
	}
	random := rand.New(rand.NewSource(time.Now().UnixNano())) // before Go 1.20 the others begin alike in each process
	tries := 0                                                // since the last connection that was of use
	for {
		err := stay(func() { tries = 0 })
		var closed websocket.CloseError
		var answer refused
		if errors.As(err, &closed) {
			err = fmt.Errorf("closed: %d %s", closed.Code, closed.Reason)
		}
		// at random, so that clients do not all come back at once
		wait := random.Float64() * math.Min(maxWait, math.Pow(2, float64(tries)))
		if closed.Code == websocket.StatusPolicyViolation || errors.As(err, &answer) && answer.Code == -1005 {
			wait = maxWait * (1 + random.Float64()) // only somebody else can fix it, by registering the system
		}
		tries++
		fmt.Fprintf(os.Stderr, "%v; next try in %.1f s\n", err, wait)
		time.Sleep(time.Duration(wait * float64(time.Second)))
	}
}

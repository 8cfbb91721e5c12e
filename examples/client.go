// A wspush client in Go: prints each push as one line, and reconnects when the connection ends.
//
//	WSPUSH_SYSTEM=shop WSPUSH_PASSWORD='open sesame' go run .
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"
)

var base, system, group = setting("WSPUSH_URL", "http://localhost:7800"), setting("WSPUSH_SYSTEM", "shop"), setting("WSPUSH_GROUP", "news")

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// envelope is the form of every answer and every frame.
type envelope struct {
	Code int64
	Msg  string
	Data json.RawMessage
}

// call and handOver are what the business system would do: only it knows the password. It keeps its token until
// an answer is 401.
var token string
var errToken = errors.New("no token, or one that has expired")

func call(path string, body map[string]string, data any) error {
	text, _ := json.Marshal(body)
	request, err := http.NewRequest("POST", base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Token", token)
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusUnauthorized {
		return errToken
	}
	var answer envelope
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Code != 0 {
		return errors.New(answer.Msg)
	}
	return json.Unmarshal(answer.Data, data)
}

func handOver(clientID string) error {
	var nothing []any
	bind := map[string]string{"clientId": clientID, "groupName": group, "userId": "go"}
	err := call("/api/bind_to_group", bind, &nothing)
	if err != errToken {
		return err
	}
	var login struct{ Token string }
	if err := call("/api/login", map[string]string{"systemId": system, "password": os.Getenv("WSPUSH_PASSWORD")}, &login); err != nil {
		return err
	}
	token = login.Token
	return call("/api/bind_to_group", bind, &nothing)
}

// stay runs one connection until it ends, and calls ready once the id has been passed on.
func stay(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	address := strings.Replace(base, "http", "ws", 1) + "/ws?systemId=" + url.QueryEscape(system)
	dial, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	socket, _, err := websocket.Dial(dial, address, nil)
	if err != nil {
		return err
	}
	defer socket.CloseNow()
	socket.SetReadLimit(-1) // the server is trusted: a push may be as long as its max_body
	go func() {             // a connection without a pong is dead
		for ctx.Err() == nil {
			ping, done := context.WithTimeout(ctx, 20*time.Second)
			if socket.Ping(ping) != nil {
				cancel()
			}
			<-ping.Done()
			done()
		}
	}()
	for first := true; ; first = false {
		_, text, err := socket.Read(ctx)
		if err != nil {
			return err
		}
		var frame struct {
			Code int64
			Data struct{ ClientID string }
		}
		// the first frame has our id, or the reason why we get none
		if first && json.Unmarshal(text, &frame) == nil && frame.Code == 0 {
			if err := handOver(frame.Data.ClientID); err != nil {
				return err
			}
			ready()
			continue
		}
		fmt.Printf("%s\n", text)
	}
}

func main() {
	delay := time.Second // before the next try, doubled each time
	for {
		err := stay(context.Background(), func() { delay = time.Second })
		if websocket.CloseStatus(err) == websocket.StatusPolicyViolation {
			fmt.Fprintln(os.Stderr, "closed with 1008: the system is not registered")
			os.Exit(1)
		}
		wait := time.Duration(float64(delay) * (0.5 + rand.Float64()/2)) // so that clients do not all reconnect at once
		fmt.Fprintf(os.Stderr, "%v; next try in %.1f s\n", err, wait.Seconds())
		time.Sleep(wait)
		delay = min(delay*2, 30*time.Second)
	}
}

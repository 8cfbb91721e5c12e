//go:build ignore

// Pushes from a backend in Go (1.19 or later, no library): each line of its input goes to the clients in a group.
//
//	echo hello | PUSH_SYSTEM=shop PUSH_PASSWORD='open sesame' go run push.go news
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"
)

var base, system, password = setting("PUSH_URL", "http://127.0.0.1:7800"), setting("PUSH_SYSTEM", "shop"), setting("PUSH_PASSWORD", "")
var client = &http.Client{Timeout: 10 * time.Second}
var token string // of the last login: good until an answer is 401

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

// object is what a call sends.
type object map[string]any

// post calls the API, and puts the data of the answer into data. It returns the HTTP status.
func post(path string, body object, data any) (int, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequest("POST", base+path, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Token", token)
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	var answer struct {
		Code int64
		Msg  string
		Data json.RawMessage
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return response.StatusCode, err
	}
	if answer.Code != 0 {
		return response.StatusCode, fmt.Errorf("%s: %s (%d)", path, answer.Msg, answer.Code)
	}
	return response.StatusCode, json.Unmarshal(answer.Data, data)
}

// call does what post does, and logs in if that is needed.
func call(path string, body object, data any) error {
	status, err := post(path, body, data)
	if status != http.StatusUnauthorized {
		return err
	}
	var login struct{ Token string } // no token yet, or it has expired
	if _, err := post("/api/login", object{"systemId": system, "password": password}, &login); err != nil {
		return err
	}
	token = login.Token
	_, err = post(path, body, data)
	return err
}

func main() {
	if password == "" {
		stop("Set PUSH_PASSWORD to the password of the system " + system + ".")
	}
	if len(os.Args) != 2 {
		stop("Usage: push.go GROUP <LINES")
	}
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		var receipt struct{ Queued int }
		message := object{"groupName": os.Args[1], "code": 7, "msg": "line", "data": input.Text(), "receipt": true}
		if err := call("/api/send_to_group", message, &receipt); err != nil {
			fmt.Fprintln(os.Stderr, err)
		} else {
			fmt.Printf("queued for %d client(s)\n", receipt.Queued)
		}
	}
}

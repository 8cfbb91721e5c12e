// main.go KEY SYSTEM USER GROUP - prints a ticket, signed by golang-jwt; see tests/e2e/foreign_tickets.sh.
package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func main() {
	key, err := base64.RawURLEncoding.DecodeString(os.Args[1])
	if err != nil {
		panic(err)
	}
	ticket, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sys": os.Args[2],
		"sub": os.Args[3],
		"grp": []string{os.Args[4]},
		"exp": jwt.NewNumericDate(time.Now().Add(time.Minute)),
	}).SignedString(key)
	if err != nil {
		panic(err)
	}
	fmt.Println(ticket)
}

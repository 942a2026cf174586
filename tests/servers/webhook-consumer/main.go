// A consumer of Alertmanager's webhook, as users write them: what it is sent is read into Alertmanager's own types,
// and the default templates make a subject of it. What Alertmanager's own code cannot read, nobody's can.
//
//	usage: webhook-consumer HOST:PORT
//
// Every request leaves one line of JSON on standard output: what was read of it, or why it could not be read.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/prometheus/alertmanager/notify/webhook"
	"github.com/prometheus/alertmanager/template"
)

// Longer ones are refused. Alertmanager sets no limit; a hundred alerts are a tenth of this.
const longestBody = 4 << 20

// received is what is told of a request. Subject is what the mail of the default templates would have.
type received struct {
	IdempotencyKey string           `json:"idempotencyKey,omitempty"`
	Subject        string           `json:"subject,omitempty"`
	Message        *webhook.Message `json:"message,omitempty"`
	Error          string           `json:"error,omitempty"`
}

type consumer struct {
	templates *template.Template
	lines     sync.Mutex
}

func (c *consumer) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		return // Whoever starts this program asks whether it is there.
	}
	told := received{IdempotencyKey: request.Header.Get("Idempotency-Key")}
	message, subject, err := c.read(http.MaxBytesReader(response, request.Body, longestBody))
	if err != nil {
		told.Error = err.Error()
	} else {
		told.Message, told.Subject = message, subject
	}
	if written := c.tell(told); written != nil {
		http.Error(response, written.Error(), http.StatusInternalServerError)
		return
	}
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
	}
}

func (c *consumer) read(body io.Reader) (*webhook.Message, string, error) {
	var message webhook.Message
	// Fields that Alertmanager does not know are let pass, as its format's users do.
	if err := json.NewDecoder(body).Decode(&message); err != nil {
		return nil, "", fmt.Errorf("not a message of Alertmanager: %w", err)
	}
	if message.Version != "4" {
		return nil, "", fmt.Errorf("not version 4: version=`%s`", message.Version)
	}
	if message.Data == nil || len(message.Alerts) == 0 {
		return nil, "", errors.New("a message without alerts")
	}
	subject, err := c.templates.ExecuteTextString(`{{ template "__subject" . }}`, message.Data)
	if err != nil {
		return nil, "", fmt.Errorf("the default templates cannot use it: %w", err)
	}
	return &message, subject, nil
}

// tell writes one line. Before the answer, so that a client that has the answer finds it.
func (c *consumer) tell(told received) error {
	c.lines.Lock()
	defer c.lines.Unlock()
	return json.NewEncoder(os.Stdout).Encode(told)
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: webhook-consumer HOST:PORT")
	}
	templates, err := template.FromGlobs(nil)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		return err
	}
	return http.Serve(listener, &consumer{templates: templates})
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "webhook-consumer:", err)
		os.Exit(1)
	}
}

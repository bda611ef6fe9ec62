// Command ollama_reader says what Ollama would do with a request: which models it would use, whether it would
// go to the cloud, and with which options. The tests compare it with what the proxy takes the request for.
//
// It reads bodies with the same encoding/json that Ollama reads them with, into structs with the same tags;
// facts are from Ollama's server, middleware, openai, anthropic and api packages, v0.24.0 and v0.33. Where two
// versions differ it answers as the more dangerous one. Members that no grant speaks of are left out, so that it
// takes more bodies than Ollama does, never fewer.
//
// A question is three texts, each after its length (four bytes, big endian): the route ("POST /api/chat"),
// the Content-Type, the body. An answer is one line of JSON, in the order of the questions.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
)

// Effect is what a request would come to.
type Effect struct {
	Refused   string           `json:"refused,omitempty"`
	Models    []string         `json:"models"`
	Cloud     bool             `json:"cloud"`
	Remote    bool             `json:"remote"`
	Web       bool             `json:"web"`
	Insecure  bool             `json:"insecure"`
	Debug     bool             `json:"debug"`
	Options   map[string]int64 `json:"options"`
	KeepAlive *int64           `json:"keep_alive"` // nanoseconds
}

func main() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	answers := json.NewEncoder(out)
	for {
		route, err := text(in)
		if errors.Is(err, io.EOF) {
			break
		}
		contentType, err1 := text(in)
		body, err2 := text(in)
		if err := errors.Join(err, err1, err2); err != nil {
			log.Fatal(err)
		}
		effect := Effect{Models: []string{}, Options: map[string]int64{}}
		if err := effect.read(string(route), string(contentType), body); err != nil {
			effect = Effect{Refused: err.Error()}
		}
		if err := answers.Encode(effect); err != nil {
			log.Fatal(err)
		}
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				log.Fatal(err)
			}
		}
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}

func text(in io.Reader) ([]byte, error) {
	var length uint32
	if err := binary.Read(in, binary.BigEndian, &length); err != nil {
		return nil, err
	}
	found := make([]byte, length)
	_, err := io.ReadFull(in, found)
	return found, err
}

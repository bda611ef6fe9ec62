package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/url"
	"strings"
	"time"
)

// Bodies, with the members that a grant speaks of (api/types.go, openai, anthropic).
type (
	embedding struct {
		Model     string         `json:"model"`
		KeepAlive *duration      `json:"keep_alive,omitempty"`
		Options   map[string]any `json:"options"`
	}
	generation struct {
		embedding
		DebugRenderOnly bool `json:"_debug_render_only,omitempty"`
	}
	openAI struct { // chat and completions
		Model           string `json:"model"`
		MaxTokens       *int   `json:"max_tokens"`
		DebugRenderOnly bool   `json:"_debug_render_only"`
	}
	openAIEmbedding struct {
		Model string `json:"model"`
	}
	responses struct {
		Model           string `json:"model"`
		MaxOutputTokens *int   `json:"max_output_tokens,omitempty"`
		Tools           []tool `json:"tools,omitempty"`
	}
	messages struct {
		Model     string `json:"model"`
		MaxTokens int    `json:"max_tokens"`
		Tools     []tool `json:"tools,omitempty"`
	}
	tool struct {
		Type  string          `json:"type"`
		Tools json.RawMessage `json:"tools,omitempty"` // read by new versions only
	}
	named struct { // show, delete
		Model string `json:"model"`
		Name  string `json:"name"`
	}
	transfer struct { // pull, push
		named
		Insecure bool `json:"insecure,omitempty"`
	}
	creation struct {
		named
		From       string         `json:"from,omitempty"`
		RemoteHost string         `json:"remote_host,omitempty"`
		Parameters map[string]any `json:"parameters,omitempty"`
	}
	copying struct {
		Source      string `json:"source"`
		Destination string `json:"destination"`
	}
)

// duration is a keep_alive: seconds, or text; negative is for ever.
type duration time.Duration

func (d *duration) UnmarshalJSON(text []byte) error {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	switch value := value.(type) {
	case float64:
		*d = math.MaxInt64
		if value >= 0 {
			*d = duration(value * float64(time.Second))
		}
	case string:
		parsed, err := time.ParseDuration(value)
		if err != nil {
			return err
		}
		*d = duration(parsed)
		if parsed < 0 {
			*d = math.MaxInt64
		}
	default:
		return fmt.Errorf("unsupported type %T", value)
	}
	return nil
}

var errNoModel = errors.New("the form names no model")

// The first value alone, as gin's ShouldBindJSON decodes it.
func decode(body []byte, into any) error {
	return json.NewDecoder(bytes.NewReader(body)).Decode(into)
}

func (e *Effect) read(route, contentType string, body []byte) error {
	switch route {
	case "POST /api/generate", "POST /api/chat":
		var r generation
		if err := decode(body, &r); err != nil {
			return err
		}
		e.Debug = r.DebugRenderOnly
		return e.infer(r.embedding)
	case "POST /api/embed", "POST /api/embeddings":
		var r embedding
		if err := decode(body, &r); err != nil {
			return err
		}
		return e.infer(r)
	case "POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings", "POST /v1/responses",
		"POST /v1/messages":
		return e.compatible(route, body)
	case "POST /v1/audio/transcriptions":
		text, err := modelOfForm(contentType, body)
		if err != nil {
			return err
		}
		return e.use(strings.ToValidUTF8(text, "\ufffd")) // it goes on in JSON
	case "GET /v1/models/{model}":
		text, err := url.PathUnescape(string(body))
		if err != nil {
			return err
		}
		return e.use(text)
	case "POST /api/show", "DELETE /api/delete":
		var r named
		if err := decode(body, &r); err != nil {
			return err
		}
		return e.use(cmp.Or(r.Model, r.Name))
	case "POST /api/pull":
		var r transfer
		if err := decode(body, &r); err != nil {
			return err
		}
		e.Insecure = r.Insecure
		return e.use(cmp.Or(r.Model, r.Name))
	case "POST /api/push":
		var r transfer
		if err := decode(body, &r); err != nil {
			return err
		}
		e.Insecure = r.Insecure
		return e.write(cmp.Or(r.Model, r.Name))
	case "POST /api/copy":
		var r copying
		if err := decode(body, &r); err != nil {
			return err
		}
		if !parseName(r.Source).valid() || !parseName(r.Destination).valid() {
			return errInvalid
		}
		return errors.Join(e.write(r.Source), e.write(r.Destination))
	case "POST /api/create":
		return e.create(body)
	case "keep_alive":
		var r duration
		if err := decode(body, &r); err != nil {
			return err
		}
		nanoseconds := int64(r)
		e.KeepAlive = &nanoseconds
		return nil
	}
	return fmt.Errorf("no such route: %s", route)
}

// use is for a model that is read as a reference.
func (e *Effect) use(text string) error {
	name, cloud, err := reference(text)
	if err != nil {
		return err
	}
	e.Models = append(e.Models, name)
	e.Cloud = e.Cloud || cloud
	return nil
}

// write is for a name that is taken as it stands.
func (e *Effect) write(text string) error {
	name, err := canonical(text)
	if err != nil {
		return err
	}
	e.Models = append(e.Models, name)
	return nil
}

func (e *Effect) infer(r embedding) error {
	if r.KeepAlive != nil {
		nanoseconds := int64(*r.KeepAlive)
		e.KeepAlive = &nanoseconds
	}
	return errors.Join(e.use(r.Model), e.options(r.Options))
}

// options takes over what stands in a map, whose numbers are floating ones (FromMap).
func (e *Effect) options(found map[string]any) error {
	for _, name := range []string{"num_ctx", "num_predict", "num_gpu", "num_thread"} {
		switch value := found[name].(type) {
		case nil:
		case float64:
			e.Options[name] = int64(value)
		default:
			return fmt.Errorf("option %q must be of type integer", name)
		}
	}
	return nil
}

func (e *Effect) compatible(route string, body []byte) error {
	var model *string
	var failed error
	switch route {
	case "POST /v1/embeddings":
		var r openAIEmbedding
		failed, model = decode(body, &r), &r.Model
	case "POST /v1/responses":
		var r responses
		failed, model = decode(body, &r), &r.Model
		e.limit(r.MaxOutputTokens)
		e.Web = searches(r.Tools)
	case "POST /v1/messages":
		var r messages
		failed, model = decode(body, &r), &r.Model
		e.limit(&r.MaxTokens)
		e.Web = searches(r.Tools)
		if failed == nil && r.MaxTokens <= 0 {
			failed = errors.New("max_tokens is required and must be positive")
		}
	default:
		var r openAI
		failed, model = decode(body, &r), &r.Model
		e.limit(r.MaxTokens)
		e.Debug = r.DebugRenderOnly
	}
	// Before that it was read by the exact name: a cloud model's request goes there whatever else it holds.
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) == nil {
		var text string
		if json.Unmarshal(members["model"], &text) == nil {
			if name, cloud, err := reference(text); err == nil && cloud {
				e.Models, e.Cloud = []string{name}, true
				return nil
			}
		}
	}
	if failed != nil {
		return failed
	}
	return e.use(*model)
}

func (e *Effect) limit(tokens *int) {
	if tokens != nil {
		e.Options["num_predict"] = int64(*tokens)
	}
}

func searches(tools []tool) bool {
	for _, one := range tools {
		kind := strings.TrimSpace(one.Type)
		var inner []tool
		_ = json.Unmarshal(one.Tools, &inner)
		if strings.HasPrefix(kind, "web_search") || strings.HasPrefix(kind, "web_fetch") || searches(inner) {
			return true
		}
	}
	return false
}

func (e *Effect) create(body []byte) error {
	var r creation
	if err := decode(body, &r); err != nil {
		return err
	}
	target := cmp.Or(r.Model, r.Name)
	if !parseName(target).valid() {
		return errInvalid
	}
	if err := errors.Join(e.write(target), e.options(r.Parameters)); err != nil {
		return err
	}
	if r.From != "" {
		e.Remote = r.RemoteHost != ""
		return e.use(r.From)
	}
	return nil
}

// modelOfForm is what http.Request's ParseMultipartForm and FormValue give; there is no query.
func modelOfForm(contentType string, body []byte) (string, error) {
	kind, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", err
	}
	boundary, ok := parameters["boundary"]
	if kind != "multipart/form-data" || !ok {
		return "", errNoModel
	}
	form, err := multipart.NewReader(bytes.NewReader(body), boundary).ReadForm(25 << 20)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if form == nil || len(form.Value["model"]) == 0 || form.Value["model"][0] == "" {
		return "", errNoModel
	}
	return form.Value["model"][0], nil
}

package main

import (
	"cmp"
	"errors"
	"regexp"
	"strings"
)

// Name is a model's name in four parts (types/model/name.go).
type Name struct{ host, namespace, model, tag string }

var (
	hostForm      = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}$`)
	namespaceForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,79}$`)
	partForm      = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$`)

	errInvalid  = errors.New("invalid model name")
	errRequired = errors.New("model is required")
	errBoth     = errors.New("use either :local or :cloud, not both")
)

// A part that a separator promises but that is not there.
const missing = "!"

func split(text, separator string) (before, after string, found bool) {
	at := strings.LastIndex(text, separator)
	if at < 0 {
		return text, "", false
	}
	return cmp.Or(text[:at], missing), cmp.Or(text[at+1:], missing), true
}

func parseName(text string) Name {
	name := Name{"registry.ollama.ai", "library", "", "latest"}
	if strings.LastIndex(text, ":") > strings.LastIndex(text, "/") {
		text, name.tag, _ = split(text, ":")
	}
	rest, model, found := split(text, "/")
	if !found {
		name.model = text
		return name
	}
	name.model = model
	text, namespace, found := split(rest, "/")
	if !found {
		name.namespace = rest
		return name
	}
	name.namespace = namespace
	if _, host, scheme := strings.Cut(text, "://"); scheme {
		text = host
	}
	name.host = cmp.Or(text, name.host)
	return name
}

func (name Name) valid() bool {
	return hostForm.MatchString(name.host) && namespaceForm.MatchString(name.namespace) &&
		partForm.MatchString(name.model) && partForm.MatchString(name.tag)
}

// What is on the disk, for names that are looked up there folded (getExistingName): each part by itself.
var existing = []Name{
	{"registry.ollama.ai", "library", "smollm2", "latest"},
	{"registry.ollama.ai", "library", "sekret", "latest"},
	{"registry.ollama.ai", "acme", "Kiosk", "7b"},
}

func (name Name) onDisk() Name {
	for _, one := range existing {
		for part, known := range map[*string]string{
			&name.host: one.host, &name.namespace: one.namespace, &name.model: one.model, &name.tag: one.tag,
		} {
			if strings.EqualFold(*part, known) {
				*part = known
			}
		}
	}
	return name
}

// canonical is the shortest spelling, in lower case, of a name as it stands on the disk.
func canonical(text string) (string, error) {
	name := parseName(text).onDisk()
	if !name.valid() {
		return "", errInvalid
	}
	short := name.model + ":" + name.tag
	switch {
	case !strings.EqualFold(name.host, "registry.ollama.ai"):
		short = name.host + "/" + name.namespace + "/" + short
	case !strings.EqualFold(name.namespace, "library"):
		short = name.namespace + "/" + short
	}
	return strings.ToLower(short), nil
}

const (
	anywhere = iota
	local
	cloud
)

// suffix takes a name's last word off where it says where the model runs (internal/modelref).
func suffix(text string) (base string, where int) {
	at := strings.LastIndex(text, ":")
	if at < 0 {
		return text, anywhere
	}
	word := strings.TrimSpace(text[at+1:])
	switch low := strings.ToLower(word); {
	case low == "cloud":
		return text[:at], cloud
	case low == "local":
		return text[:at], local
	case strings.HasSuffix(low, "-cloud") && !strings.Contains(word, "/"):
		return text[:at+1] + word[:len(word)-len("-cloud")], cloud
	}
	return text, anywhere
}

// reference is how all routes but push, copy and create's target read a name. The canonical name of a cloud
// model is that of its stub, as pull and delete spell it.
func reference(text string) (name string, isCloud bool, err error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "", false, errRequired
	}
	base, where := suffix(text)
	if where != anywhere {
		if _, again := suffix(base); again != anywhere {
			return "", false, errBoth
		}
	}
	if !parseName(base).valid() {
		return "", false, errInvalid
	}
	if where != cloud {
		name, err = canonical(base)
		return name, false, err
	}
	stub := base + ":cloud"
	if strings.LastIndex(base, ":") > strings.LastIndex(base, "/") {
		stub = base + "-cloud"
	}
	// The stub's name may be too long where the model's own, which the cloud is asked for, is not.
	if name, err = canonical(stub); err != nil {
		name, err = stub, nil
	}
	return name, true, err
}

// Renders templates with Go's text/template: one JSON object a line in, one a line out, in order.
//
// The functions that text/template does not have mean what they mean in sprig, with one difference, which is khook's:
// trunc leaves no half character behind.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"text/template"
)

type request struct {
	Template string `json:"template"`
	Values   fields `json:"values"`
}

// A struct, not a map: a field that does not exist is an error.
type fields struct {
	ResourceName, EventTime, Namespace, EventMessage, EventType, Reason, Message, Timestamp string
}

type answer struct {
	OK     bool   `json:"ok"`
	Output string `json:"output,omitempty"`
	Error  string `json:"error,omitempty"`
}

var functions = template.FuncMap{
	"quote":   quote,
	"upper":   strings.ToUpper,
	"lower":   strings.ToLower,
	"trunc":   trunc,
	"default": fallback,
}

func quote(values ...any) string {
	var quoted []string
	for _, value := range values {
		if value != nil {
			quoted = append(quoted, fmt.Sprintf("%q", fmt.Sprint(value)))
		}
	}
	return strings.Join(quoted, " ")
}

func trunc(size int, text string) string {
	switch {
	case size >= 0 && size < len(text):
		text = text[:size]
	case size < 0 && -size < len(text) && -size > 0: // -size overflows for the least of all numbers
		text = text[len(text)+size:]
	}
	return strings.ToValidUTF8(text, "")
}

func fallback(instead any, given ...any) any {
	if len(given) == 0 || given[0] == nil || reflect.ValueOf(given[0]).IsZero() {
		return instead
	}
	return given[0]
}

func render(one request) (string, error) {
	parsed, err := template.New("prompt").Funcs(functions).Parse(one.Template)
	if err != nil {
		return "", err
	}
	var output strings.Builder
	err = parsed.Execute(&output, one.Values)
	return output.String(), err
}

func main() {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := bufio.NewWriter(os.Stdout)
	answers := json.NewEncoder(out)
	for {
		var one request
		if err := in.Decode(&one); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		said := answer{OK: true}
		if output, err := render(one); err != nil {
			said = answer{Error: err.Error()}
		} else {
			said.Output = output
		}
		if err := answers.Encode(said); err != nil {
			os.Exit(1)
		}
	}
	if out.Flush() != nil {
		os.Exit(1)
	}
}

package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Piece is a part of a value with placeholders: fixed text, or what stands between
// braces. Of {header.NAME} the word is header and the name is NAME.
type Piece struct{ Text, Word, Name string }

// requestWords are the placeholders that any value may have.
func requestWords() []string {
	return []string{"client", "header.NAME", "host", "listener", "method", "node", "path", "query", "request_id", "route", "scheme", "uri"}
}

// responseWords are the placeholders of a value in an answer.
func responseWords() []string { return append(requestWords(), "status") }

// RequestPieces cuts a value of a request's field at its placeholders.
func RequestPieces(value string) ([]Piece, error) { return pieces(value, requestWords()) }

// ResponsePieces cuts a value of an answer's field at its placeholders.
func ResponsePieces(value string) ([]Piece, error) { return pieces(value, responseWords()) }

// pieces cuts a value at its placeholders. A brace begins one only before a lower-case
// letter, so that JSON needs no care; "{{" is a brace that begins none.
func pieces(value string, words []string) ([]Piece, error) {
	var all []Piece
	text := ""
	for value != "" {
		open := strings.IndexByte(value, '{')
		if open < 0 || open+1 == len(value) {
			text += value
			break
		}
		text += value[:open]
		next := value[open+1]
		value = value[open+1:]
		if next == '{' {
			text, value = text+"{", value[1:]
			continue
		}
		if next < 'a' || next > 'z' {
			text += "{"
			continue
		}
		inner, rest, closed := strings.Cut(value, "}")
		if !closed {
			return nil, fmt.Errorf("has {%s without its closing brace; a brace that begins no placeholder is written {{", inner)
		}
		word, name, named := strings.Cut(inner, ".")
		known := inner
		if named {
			known = word + ".NAME"
		}
		if !slices.Contains(words, known) || named && !fieldName(name) {
			return nil, errors.New(unknownWord(inner, words))
		}
		if text != "" {
			all, text = append(all, Piece{Text: text}), ""
		}
		all, value = append(all, Piece{Word: word, Name: name}), rest
	}
	if text != "" {
		all = append(all, Piece{Text: text})
	}
	return all, nil
}

func unknownWord(word string, words []string) string {
	msg := fmt.Sprintf("has an unknown placeholder {%s}; ", word)
	if near := nearest(word, words); near != "" {
		msg += fmt.Sprintf("did you mean {%s}? ", near)
	}
	return msg + "there are {" + strings.Join(words, "}, {") + "}"
}

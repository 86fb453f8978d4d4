package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Secret is a text that nothing prints: every way of formatting it gives "[secret]".
// Convert it to a string or bytes to use it.
type Secret string

// Format hides the text from every verb of fmt.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalText hides the text from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// minSecret is the least number of bytes of a secret. What the cluster's keys are made
// of must not be guessed.
const minSecret = 16

// maxSecretFile bounds what is read of a secret's file.
const maxSecretFile = 64 << 10

// A Host is what a configuration needs to know of the machine on which it is read. The
// fields are those of package os; tests give their own.
type Host struct {
	Hostname func() (string, error)
	Getenv   func(name string) string
	Stat     func(name string) (fs.FileInfo, error)
	ReadFile func(name string) ([]byte, error)
	Glob     func(pattern string) ([]string, error) // of package path/filepath
}

// thisHost is the machine itself.
func thisHost() Host {
	return Host{Hostname: os.Hostname, Getenv: os.Getenv, Stat: os.Stat, ReadFile: os.ReadFile, Glob: filepath.Glob}
}

// secret reads what a reference points to. The error never holds the text, nor a
// reference that may be the secret itself.
func (h Host) secret(ref string) (Secret, error) {
	kind, where, ok := strings.Cut(ref, ":")
	switch {
	case ok && kind == "file" && where != "":
		return h.secretFile(where)
	case ok && kind == "env" && where != "":
		text := strings.TrimSpace(h.Getenv(where))
		if text == "" {
			return "", fmt.Errorf("environment variable %s is not set", where)
		}
		if len(text) < minSecret {
			return "", fmt.Errorf("environment variable %s holds %d characters; at least %d are needed", where, len(text), minSecret)
		}
		return Secret(text), nil
	}
	return "", errors.New(`needs "file:/path" or "env:NAME"; the secret itself never stands in this file`)
}

// secretFile reads a secret. A credential of the same name that the service manager
// handed over (LoadCredential of systemd) goes before the file, which may then be
// root's alone.
func (h Host) secretFile(name string) (Secret, error) {
	if !filepath.IsAbs(name) {
		return "", fmt.Errorf("file %s: the path must be absolute", name)
	}
	if dir := h.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		if handed := filepath.Join(dir, filepath.Base(name)); h.exists(handed) {
			name = handed
		}
	}
	info, err := h.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("file %s does not exist; `hactl init` makes one, and every node needs the same", name)
	case err != nil:
		return "", fmt.Errorf("file %s: %w", name, cause(err))
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("file %s is not a regular file", name)
	case info.Mode().Perm()&^0o640 != 0:
		return "", fmt.Errorf("file %s has mode %04o, which lets others in; run: chmod 0640 %s", name, info.Mode().Perm(), name)
	case info.Size() > maxSecretFile:
		return "", fmt.Errorf("file %s has %d bytes; at most %d are read", name, info.Size(), maxSecretFile)
	}
	data, err := h.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("file %s: %w; the user that runs proxyd must be able to read it", name, cause(err))
	}
	text := strings.TrimSpace(string(data))
	if len(text) < minSecret {
		return "", fmt.Errorf("file %s holds %d characters; at least %d are needed: openssl rand -base64 32 > %s", name, len(text), minSecret, name)
	}
	return Secret(text), nil
}

func (h Host) exists(name string) bool {
	_, err := h.Stat(name)
	return err == nil
}

// cause strips what os says about the operation and the name.
func cause(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

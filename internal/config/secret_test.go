package config

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"
)

const passphrase = "correct horse battery staple"

// clustered is a file whose secret is a reference.
func clustered(ref string) []byte {
	return fmt.Appendf(nil, "[cluster]\njoin = [\"10.0.0.11\"]\nsecret = %q\n[[route]]\nto = [\"a:1\"]\n", ref)
}

func TestSecretComesFromFileOrVariable(t *testing.T) {
	for _, ref := range []string{"file:/etc/proxyd/cluster.key", "file:/etc/proxyd/group.key", "env:KEY"} {
		c, err := testHost().Parse("proxyd.toml", clustered(ref))
		if err != nil {
			t.Fatalf("secret = %q: %v", ref, err)
		}
		if string(c.Cluster.Secret) != passphrase || c.Cluster.SecretRef != ref {
			t.Errorf("secret = %q reads %q, reference %q", ref, string(c.Cluster.Secret), c.Cluster.SecretRef)
		}
	}
}

func TestCredentialOfServiceManagerGoesFirst(t *testing.T) {
	h := testHost()
	files := fstest.MapFS{"run/credentials/proxyd/root.key": {Data: []byte("another horse, another staple"), Mode: 0o400}}
	getenv, stat, read := h.Getenv, h.Stat, h.ReadFile
	h.Getenv = func(name string) string {
		if name == "CREDENTIALS_DIRECTORY" {
			return "/run/credentials/proxyd"
		}
		return getenv(name)
	}
	h.Stat = func(name string) (fs.FileInfo, error) {
		if info, err := files.Stat(name[1:]); err == nil {
			return info, nil
		}
		return stat(name)
	}
	h.ReadFile = func(name string) ([]byte, error) {
		if data, err := files.ReadFile(name[1:]); err == nil {
			return data, nil
		}
		return read(name)
	}
	for ref, want := range map[string]string{
		"file:/etc/proxyd/root.key":    "another horse, another staple",
		"file:/etc/proxyd/cluster.key": passphrase, // none was handed over: the file itself
	} {
		c, err := h.Parse("proxyd.toml", clustered(ref))
		if err != nil {
			t.Fatalf("secret = %q: %v", ref, err)
		}
		if string(c.Cluster.Secret) != want {
			t.Errorf("secret = %q reads %q, want %q", ref, string(c.Cluster.Secret), want)
		}
	}
}

func TestNothingPrintsTheSecret(t *testing.T) {
	c, err := testHost().Parse("proxyd.toml", clustered("file:/etc/proxyd/cluster.key"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := testHost().Parse("proxyd.toml", clustered("env:KEY"))
	if err != nil {
		t.Fatal(err)
	}
	other.Cluster.Secret += "!"
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("applied", "cluster", c.Cluster, "secret", c.Cluster.Secret)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("applied", "cluster", c.Cluster, "secret", c.Cluster.Secret)
	for _, text := range []string{
		fmt.Sprintf("%v %+v %#v %s %q %x %d", c.Cluster, c.Cluster, c.Cluster, c.Cluster.Secret, c.Cluster.Secret, c.Cluster.Secret, c.Cluster.Secret),
		string(encoded),
		logged.String(),
		c.Effective(),
		strings.Join(Changes(c, other), "\n"),
	} {
		if strings.Contains(text, "horse") || strings.Contains(text, fmt.Sprintf("%x", "horse")) {
			t.Errorf("the secret is in %s", text)
		}
	}
}

// What stands inline may be the secret itself, so the message must not repeat it.
func TestInlineSecretIsNotRepeated(t *testing.T) {
	for _, ref := range []string{passphrase, "hunter2hunter2hunter2", "file:", "env:", "vault:" + passphrase, ""} {
		_, err := testHost().Parse("proxyd.toml", clustered(ref))
		if err == nil {
			t.Errorf("secret = %q was accepted", ref)
		} else if len(ref) > 5 && strings.Contains(err.Error(), ref) {
			t.Errorf("the message repeats the secret: %v", err)
		}
	}
}

func TestUnreadableSecretNamesFileAndCause(t *testing.T) {
	h := testHost()
	h.ReadFile = func(name string) ([]byte, error) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	_, err := h.Parse("proxyd.toml", clustered("file:/etc/proxyd/cluster.key"))
	want := `proxyd.toml:3:10: cluster.secret file /etc/proxyd/cluster.key: permission denied; the user that runs proxyd must be able to read it`
	if err == nil || err.Error() != want {
		t.Errorf("Parse = %v, want %s", err, want)
	}
}

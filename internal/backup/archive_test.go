package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const key = "a secret of the cluster"

func edge1(t *testing.T, passphrase string) (*Archive, []byte) {
	t.Helper()
	a := &Archive{Manifest: Manifest{Cluster: "edge", Node: "edge-1", Address: "10.0.0.11:7946", Version: "1", Time: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC),
		Config: "abc", Main: "/etc/proxyd/proxyd.toml", State: "/var/lib/proxyd", Secrets: []Secret{{Ref: "file:/etc/proxyd/cluster.key", Have: "no"}}}}
	a.Add("config/proxyd.toml", []byte("include = [\"conf.d/*.toml\"]\ncluster.join = [\"10.0.0.11\", \"10.0.0.12\"]\ncluster.secret = \"file:/etc/proxyd/cluster.key\"\n\n[node]\nname = \"edge-1\"\n"))
	a.Add("config/conf.d/one.toml", []byte("[[route]]\nrespond = { status = 200 }\n"))
	a.Add("state/term", []byte("2000\n"))
	a.Add("state/overrides.json", []byte("[]\n"))
	if passphrase != "none" {
		if err := a.AddSecrets(map[string][]byte{"/etc/proxyd/cluster.key": []byte(key)}, passphrase); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := a.Write(&b); err != nil {
		t.Fatal(err)
	}
	return a, b.Bytes()
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	a, text := edge1(t, "")
	got, err := Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a, got); d != "" {
		t.Error(d)
	}
}

func TestSealedSecretsNeedThePassphrase(t *testing.T) {
	_, text := edge1(t, "correct horse battery")
	if bytes.Contains(unzip(t, text), []byte(key)) {
		t.Error("a sealed secret is in the archive in clear")
	}
	a, err := Read(bytes.NewReader(text))
	if err != nil || !a.Sealed() || a.Secrets[0].Have != "sealed" {
		t.Fatalf("Read = %+v, %v", a, err)
	}
	if _, err := a.OpenSecrets("correct horse cattery"); !errors.Is(err, ErrPassphrase) {
		t.Errorf("another passphrase: %v", err)
	}
	secrets, err := a.OpenSecrets("correct horse battery")
	if err != nil || string(secrets["/etc/proxyd/cluster.key"]) != key {
		t.Errorf("OpenSecrets = %q, %v", secrets, err)
	}
	if err := a.AddSecrets(secrets, "short"); err == nil {
		t.Error("a short passphrase was taken")
	}
}

// The keys of a cluster lie in node.state, and go where that goes.
func TestRestoredRingOfKeysGoesWithTheState(t *testing.T) {
	dir := t.TempDir()
	a, _ := edge1(t, "none")
	a.Manifest.Secrets = append(a.Manifest.Secrets, Secret{Ref: "file:/var/lib/proxyd/keys.json", Have: "no"})
	r, err := a.Restore(Target{Main: dir + "/etc/proxyd.toml", State: dir + "/state", Secrets: map[string][]byte{"/var/lib/proxyd/keys.json": []byte("{}")}})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir + "/state/keys.json")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; restored %+v", info, err, r)
	}
	if len(r.Missing) != 1 {
		t.Errorf("missing %q, want the secret alone", r.Missing)
	}
}

func unzip(t *testing.T, text []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDamagedOrStrangeArchivesAreRefused(t *testing.T) {
	_, good := edge1(t, "none")
	archive := func(files ...string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		for i := 0; i < len(files); i += 2 {
			_ = w.WriteHeader(&tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o600})
			_, _ = w.Write([]byte(files[i+1]))
		}
		w.Close()
		z.Close()
		return b.Bytes()
	}
	for name, text := range map[string][]byte{
		"nothing":            nil,
		"cut short":          good[:len(good)/2],
		"no manifest":        archive("config/proxyd.toml", ""),
		"another format":     archive("manifest.json", `{"format":2}`),
		"outside":            archive("../../etc/passwd", "", "manifest.json", `{"format":1}`),
		"absolute":           archive("/etc/passwd", "", "manifest.json", `{"format":1}`),
		"not named":          archive("manifest.json", `{"format":1}`, "config/more.toml", ""),
		"named and not here": archive("manifest.json", `{"format":1,"files":[{"name":"a"}]}`),
		"another text":       archive("manifest.json", `{"format":1,"files":[{"name":"a","size":1,"sha256":"00"}]}`, "a", "x"),
	} {
		if _, err := Read(bytes.NewReader(text)); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("manifest.json"), []byte(`{"format":1}`))
	f.Add([]byte("../x"), []byte(`{}`))
	f.Fuzz(func(t *testing.T, name, text []byte) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		if w.WriteHeader(&tar.Header{Name: string(name), Size: int64(len(text)), Mode: 0o600}) != nil {
			return
		}
		_, _ = w.Write(text)
		w.Close()
		z.Close()
		a, err := Read(&b)
		if err != nil {
			return
		}
		for name := range a.Data {
			if !filepath.IsLocal(name) {
				t.Errorf("%q leads outside", name)
			}
		}
	})
}

func TestRestoreMakesAnotherNodeInItsPlace(t *testing.T) {
	a, _ := edge1(t, "none")
	dir := t.TempDir()
	to := Target{Main: dir + "/etc/proxyd.toml", State: dir + "/state", Name: "edge-3", Address: "10.0.0.13:7946",
		Secrets: map[string][]byte{dir + "/cluster.key": []byte(key)}}
	r, err := a.Restore(to)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Files) != 5 || len(r.Missing) != 1 {
		t.Errorf("Restore = %+v", r)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	main := read("etc/proxyd.toml")
	for _, want := range []string{`cluster.join = ["10.0.0.13", "10.0.0.12"]`, `name = "edge-3"`, `state = "` + dir + `/state"`, `include = ["conf.d/*.toml"]`} {
		if !strings.Contains(main, want) {
			t.Errorf("the main file has no %s:\n%s", want, main)
		}
	}
	if got := read("state/term"); got != "1002000\n" {
		t.Errorf("term %q, want one above all that was used since", got)
	}
	if read("etc/conf.d/one.toml") == "" || read("state/overrides.json") == "" {
		t.Error("a file is empty")
	}
	if info, err := os.Stat(dir + "/cluster.key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key is %v, %v", info, err)
	}
	if _, err := a.Restore(to); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("Restore over it = %v", err)
	}
	to.Force = true
	if _, err := a.Restore(to); err != nil {
		t.Errorf("forced Restore = %v", err)
	}
	to.Address, to.Force, to.Main = "10.0.0.13", false, dir+"/other/proxyd.toml"
	if _, err := a.Restore(to); err == nil {
		t.Error("an address without a port was taken")
	}
	if _, err := os.Stat(dir + "/other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
}

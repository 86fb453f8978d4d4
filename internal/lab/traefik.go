package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	traefikVersion = "v3.7.13"
	traefikModule  = "github.com/traefik/traefik/v3"
)

// InstallTraefik returns the program of Traefik: one that is in the path, or else one built of
// the Go module proxy into a folder below dir, once. No release of Debian has it, and go
// install refuses its module, which replaces others. What takes no part in forwarding is left
// out: the providers of DNS for ACME and basic and digest authentication, each with
// dependencies of its own, and the pages of the dashboard.
func InstallTraefik(ctx context.Context, dir string, out io.Writer) (string, error) {
	if found, err := exec.LookPath("traefik"); err == nil {
		return found, nil
	}
	dir = filepath.Join(dir, "traefik-"+traefikVersion)
	program := filepath.Join(dir, "traefik")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	fmt.Fprintf(out, "building Traefik %s, once; that takes ten minutes\n", traefikVersion)
	module, err := goTool(ctx, "", "mod", "download", "-json", traefikModule+"@"+traefikVersion)
	if err != nil {
		return "", err
	}
	var at struct{ Dir string }
	if err := json.Unmarshal(module, &at); err != nil {
		return "", fmt.Errorf("go mod download %s: %w", traefikModule, err)
	}
	src, err := os.MkdirTemp("", "traefik-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(src)
	if err := errors.Join(os.CopyFS(src, os.DirFS(at.Dir)), cutTraefik(src)); err != nil {
		return "", fmt.Errorf("copy Traefik: %w", err)
	}
	const auth = "github.com/abbot/go-http-auth"
	if _, err := goTool(ctx, src, "mod", "edit", "-dropreplace", auth, "-droprequire", auth); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	_, err = goTool(ctx, src, "build", "-mod=mod", "-p", "1", "-trimpath", "-ldflags", "-s -w -X "+traefikModule+"/pkg/version.Version="+traefikVersion,
		"-o", program+".new", "./cmd/traefik")
	if err != nil {
		return "", err
	}
	return program, os.Rename(program+".new", program)
}

// cutTraefik leaves out of its source what InstallTraefik says, and adds the module that is
// not published with it.
func cutTraefik(src string) error {
	for _, name := range []string{"basic_auth.go", "digest_auth.go"} {
		if err := os.Remove(filepath.Join(src, "pkg/middlewares/auth", name)); err != nil {
			return err
		}
	}
	provider := filepath.Join(src, "pkg/provider/acme/provider.go")
	text, err := os.ReadFile(provider)
	if err != nil {
		return err
	}
	whole, none := []byte(`"github.com/go-acme/lego/v5/providers/dns"`), []byte(`"`+traefikModule+`/pkg/provider/acme/dns"`)
	if !bytes.Contains(text, whole) {
		return fmt.Errorf("%s has no %s", provider, whole)
	}
	for name, text := range map[string]string{
		"pkg/provider/acme/provider.go": string(bytes.Replace(text, whole, none, 1)),
		"pkg/provider/acme/dns/dns.go": `package dns

import (
	"errors"

	"github.com/go-acme/lego/v5/challenge"
)

func NewDNSChallengeProviderByName(string) (challenge.Provider, error) {
	return nil, errors.New("left out of this build")
}
`,
		"pkg/middlewares/auth/left_out.go": `package auth

import (
	"context"
	"errors"
	"net/http"

	"` + traefikModule + `/pkg/config/dynamic"
)

var errLeftOut = errors.New("left out of this build")

func NewBasic(context.Context, http.Handler, dynamic.BasicAuth, string) (http.Handler, error) {
	return nil, errLeftOut
}

func NewDigest(context.Context, http.Handler, dynamic.DigestAuth, string) (http.Handler, error) {
	return nil, errLeftOut
}
`,
		"pkg/config/dynamic/ext/go.mod": "module github.com/traefik/traefik/dynamic/ext\n",
		"pkg/config/dynamic/ext/ext.go": "package ext\n\ntype (\n\tHTTP   struct{}\n\tRouter struct{}\n)\n",
		"webui/static/index.html":       "",
	} {
		name = filepath.Join(src, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// goTool runs the go command in a folder and returns what it printed.
func goTool(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	var wrong bytes.Buffer
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, wrong.Bytes())
	}
	return out, nil
}

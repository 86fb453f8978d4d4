package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"proxyd/internal/control"
)

// The exit codes that scripts may rely on; 64 and above are those of sysexits.
const (
	exitDegraded    = 1 // of status
	exitDiffers     = 1 // of diff
	exitFailed      = 2
	exitUnreachable = 3 // of status alone
	exitRefused     = 4
	exitTimeout     = 5
	exitUsage       = 64
	exitUnavailable = 69
	exitPermission  = 77
	exitConfig      = 78
)

// A usageError is a command line that cannot be understood.
type usageError struct{ error }

// A statusError ends the program with a code of its own; its text may be empty when all
// has been said on standard output.
type statusError struct {
	code int
	text string
}

func (e statusError) Error() string { return e.text }

func exitCode(err error) int {
	var status statusError
	var usage usageError
	switch {
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return exitPermission
	case errors.Is(err, control.ErrAbsent):
		return exitUnavailable
	case errors.Is(err, control.ErrRefused):
		return exitRefused
	case errors.Is(err, control.ErrTimeout):
		return exitTimeout
	case errors.Is(err, control.ErrInvalid):
		return exitConfig
	}
	return 1
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s: unknown command or argument %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

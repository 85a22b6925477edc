// Reads a compose file as Docker Compose does, by the Compose specification's reference loader: against the specification's
// schema, interpolated, normalised and checked for consistency. Prints the project as JSON; a fault ends it with 1.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: compose FOLDER FILE")
		os.Exit(2)
	}
	// The environment is left out on purpose: what the file needs of it would show as a fault.
	options, err := cli.NewProjectOptions([]string{os.Args[2]}, cli.WithWorkingDirectory(os.Args[1]), cli.WithInterpolation(true),
		cli.WithNormalization(true), cli.WithConsistency(true), cli.WithResolvedPaths(true), cli.WithProfiles([]string{"*"}))
	if err == nil {
		project, fault := options.LoadProject(context.Background())
		if err = fault; err == nil {
			var text []byte
			if text, err = project.MarshalJSON(); err == nil {
				_, err = os.Stdout.Write(text)
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

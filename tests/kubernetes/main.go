// Command kubernetes is what the tests run as a real cluster, in one binary so
// that there is one thing to build: the first argument says which program it is.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

// A program takes over the process; its first argument is its own name.
var programs = map[string]func(args []string){
	"etcd":                    etcdmain.Main,
	"kube-apiserver":          command(apiserver.NewAPIServerCommand),
	"kube-controller-manager": command(controllers.NewControllerManagerCommand),
}

func command(newCommand func() *cobra.Command) func([]string) {
	return func([]string) { os.Exit(cli.Run(newCommand())) }
}

func main() {
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: kubernetes etcd|kube-apiserver|kube-controller-manager [FLAG]...")
		os.Exit(2)
	}
	go endWithParent()
	os.Args = os.Args[1:]
	programs[os.Args[0]](os.Args)
}

// The test holds the other end of the standard input: however it ends, killed
// for a timeout as well, no program stays behind.
func endWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(1)
}

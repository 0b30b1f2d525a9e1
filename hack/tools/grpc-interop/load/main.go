// Calls the service of gRPC's interoperability tests without pause, each call once and never again, until its input ends.
//
// Usage: load WORKERS ADDRESS ... It uses the first address that answers, and the next where that one says GOAWAY and
// is gone. Prints how many calls were answered and how many failed by status, as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
)

func main() {
	workers, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	addresses := manual.NewBuilderWithScheme("addresses")
	var state resolver.State
	for _, address := range os.Args[2:] {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	addresses.InitialState(state)
	channel, err := grpc.NewClient(
		"addresses:///",
		grpc.WithResolvers(addresses),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(),
	)
	if err != nil {
		log.Fatal(err)
	}
	client := testpb.NewTestServiceClient(channel)
	request := &testpb.SimpleRequest{ResponseSize: 100}
	if _, err := client.UnaryCall(context.Background(), request, grpc.WaitForReady(true)); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")

	ending := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ending)
	}()
	var lock sync.Mutex
	answered, failed := 0, map[string]int{}
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for {
				// It waits for a connection; a call that has been sent is never repeated.
				_, err := client.UnaryCall(context.Background(), request, grpc.WaitForReady(true))
				lock.Lock()
				if err != nil {
					failed[status.Convert(err).String()]++
				} else {
					answered++
				}
				lock.Unlock()
				select {
				case <-ending:
					return
				default:
				}
			}
		})
	}
	running.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"answered": answered, "failed": failed}); err != nil {
		log.Fatal(err)
	}
}

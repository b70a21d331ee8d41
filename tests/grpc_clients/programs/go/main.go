// Carries out calls (see ../../conftest.py) with grpc-go.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/ioutil"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type same struct{}

func (same) Marshal(v interface{}) ([]byte, error)      { return *v.(*[]byte), nil }
func (same) Unmarshal(data []byte, v interface{}) error { *v.(*[]byte) = data; return nil }
func (same) Name() string                               { return "proto" }
func (same) String() string                             { return "proto" }

type call struct {
	Name, Path, Kind string
	Messages         []string
	Metadata         [][2]string
	Timeout          *float64 `json:"timeout_s"`
	Cancel           *float64 `json:"cancel_s"`
	Times, Answers   int
	AtOnce           bool `json:"at_once"`
	Traceparent      bool
}

type outcome struct {
	Code     uint32      `json:"code"`
	Details  string      `json:"details"`
	Answers  []string    `json:"answers"`
	Trailers [][2]string `json:"trailers"`
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func random(size int) string {
	data := make([]byte, size)
	rand.Read(data)
	return hex.EncodeToString(data)
}

func ask(ctx context.Context, stop func(), conn *grpc.ClientConn, c call, found *outcome, trailer *metadata.MD) error {
	var messages [][]byte
	for _, each := range c.Messages {
		data, _ := base64.StdEncoding.DecodeString(each)
		messages = append(messages, data)
	}
	keep := func(data []byte) { found.Answers = append(found.Answers, base64.StdEncoding.EncodeToString(data)) }
	var answer []byte
	if c.Kind == "unary" {
		err := conn.Invoke(ctx, c.Path, &messages[0], &answer, grpc.Trailer(trailer))
		if err == nil {
			keep(answer)
		}
		return err
	}
	shape := &grpc.StreamDesc{ServerStreams: true, ClientStreams: c.Kind == "bidi"}
	stream, err := conn.NewStream(ctx, shape, c.Path)
	if err != nil {
		return err
	}
	defer func() { *trailer = stream.Trailer() }()
	for i := range messages {
		if err := stream.SendMsg(&messages[i]); err != nil && err != io.EOF {
			return err
		}
	}
	stream.CloseSend()
	for {
		var answer []byte
		if err := stream.RecvMsg(&answer); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		keep(answer)
		if len(found.Answers) == c.Answers {
			stop()
		}
	}
}

func carryOut(conn *grpc.ClientConn, c call) outcome {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if c.Timeout != nil {
		ctx, stop = context.WithTimeout(ctx, seconds(*c.Timeout))
		defer stop()
	}
	if c.Cancel != nil {
		time.AfterFunc(seconds(*c.Cancel), stop)
	}
	for _, pair := range c.Metadata {
		value := pair[1]
		if strings.HasSuffix(pair[0], "-bin") {
			data, _ := base64.StdEncoding.DecodeString(value)
			value = string(data)
		}
		ctx = metadata.AppendToOutgoingContext(ctx, pair[0], value)
	}
	if c.Traceparent {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", "00-"+random(16)+"-"+random(8)+"-01")
	}
	found := outcome{Answers: []string{}, Trailers: [][2]string{}}
	var trailer metadata.MD
	err := ask(ctx, stop, conn, c, &found, &trailer)
	found.Code, found.Details = uint32(status.Code(err)), status.Convert(err).Message()
	for key, values := range trailer {
		for _, value := range values {
			if strings.HasSuffix(key, "-bin") {
				value = base64.StdEncoding.EncodeToString([]byte(value))
			}
			found.Trailers = append(found.Trailers, [2]string{key, value})
		}
	}
	return found
}

func main() {
	var job struct {
		Target string
		Ca     string
		Calls  []call
	}
	text, _ := ioutil.ReadFile(os.Args[1])
	if err := json.Unmarshal(text, &job); err != nil {
		panic(err)
	}
	options := []grpc.DialOption{grpc.WithDefaultCallOptions(
		grpc.ForceCodec(same{}), grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32))}
	if job.Ca == "" {
		options = append(options, grpc.WithInsecure())
	} else {
		credentials, err := credentials.NewClientTLSFromFile(job.Ca, "")
		if err != nil {
			panic(err)
		}
		options = append(options, grpc.WithTransportCredentials(credentials))
	}
	conn, err := grpc.Dial(job.Target, options...)
	if err != nil {
		panic(err)
	}
	for _, c := range job.Calls {
		outcomes := make([]outcome, c.Times)
		if c.AtOnce {
			var all sync.WaitGroup
			all.Add(c.Times)
			for i := range outcomes {
				go func(i int) {
					defer all.Done()
					outcomes[i] = carryOut(conn, c)
				}(i)
			}
			all.Wait()
		} else {
			for i := range outcomes {
				outcomes[i] = carryOut(conn, c)
			}
		}
		line, _ := json.Marshal(map[string]interface{}{"name": c.Name, "outcomes": outcomes})
		os.Stdout.Write(append(line, '\n'))
	}
	conn.Close()
}

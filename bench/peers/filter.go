// The callbacks of bench/handlers on github.com/emersion/go-milter as Debian has it: they read the same values and add
// the same header. The library has no callback for DATA and for the end of a connection. A benchmark's peer, not an
// example.
//
// Argument: the socket's path.
package main

import (
	"fmt"
	"net"
	"net/textproto"
	"os"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-milter"
)

type filter struct {
	kept int
}

func (f *filter) keep(values ...string) {
	for _, value := range values {
		f.kept += len(value)
	}
}

func (f *filter) Connect(host string, family string, port uint16, addr net.IP, m *milter.Modifier) (milter.Response, error) {
	f.keep(host, addr.String(), m.Macros["{daemon_name}"])
	return milter.RespContinue, nil
}

func (f *filter) Helo(name string, m *milter.Modifier) (milter.Response, error) {
	f.keep(name, m.Macros["{cert_issuer}"], m.Macros["{cert_subject}"], m.Macros["{cipher_bits}"], m.Macros["{cipher}"],
		m.Macros["{tls_version}"])
	return milter.RespContinue, nil
}

func (f *filter) MailFrom(from string, m *milter.Modifier) (milter.Response, error) {
	f.keep(from, m.Macros["{mail_addr}"], m.Macros["{auth_authen}"], m.Macros["{auth_author}"], m.Macros["{auth_type}"])
	if from == "spam-from@example.com" {
		return milter.RespReject, nil
	}
	return milter.RespContinue, nil
}

func (f *filter) RcptTo(rcptTo string, m *milter.Modifier) (milter.Response, error) {
	f.keep(rcptTo, m.Macros["{rcpt_addr}"])
	return milter.RespContinue, nil
}

func (f *filter) Header(name string, value string, m *milter.Modifier) (milter.Response, error) {
	f.keep(name, value)
	return milter.RespContinue, nil
}

func (f *filter) Headers(h textproto.MIMEHeader, m *milter.Modifier) (milter.Response, error) {
	return milter.RespContinue, nil
}

func (f *filter) BodyChunk(chunk []byte, m *milter.Modifier) (milter.Response, error) {
	f.kept += utf8.RuneCount(chunk)
	return milter.RespContinue, nil
}

func (f *filter) Body(m *milter.Modifier) (milter.Response, error) {
	f.keep(m.Macros["j"], m.Macros["i"])
	f.kept += int(time.Now().Unix())
	if err := m.AddHeader("X-Pmilter", "Enable"); err != nil {
		return nil, err
	}
	return milter.RespContinue, nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: filter SOCKET")
		os.Exit(2)
	}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server := milter.Server{
		NewMilter: func() milter.Milter { return &filter{} },
		Actions:   milter.OptAddHeader,
	}
	if err := server.Serve(listener); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

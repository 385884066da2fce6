//go:build tools

// Package sanity pins the conformance suite: `go mod tidy` keeps what it finds imported here.
package sanity

import _ "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"

// Package examples holds pipelines to learn from and to try a server with. It stands beside the flow; the demo runs one of
// them through the real client, so they are part of the binary.
package examples

import _ "embed"

// BreastCancer is the demo's pipeline, a Python file: real data, several models, the best one chosen.
//
//go:embed breast_cancer.py
var BreastCancer []byte

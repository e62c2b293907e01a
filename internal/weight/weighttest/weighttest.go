// Package weighttest makes messages that are small in bytes and large in memory.
package weighttest

import (
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// LiteralMap is an encoded flyteidl.core.LiteralMap with one literal: a collection of n empty literals, of two bytes each.
func LiteralMap(name string, n int) []byte {
	literal := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), nil)
	collection := Within(2, []byte(strings.Repeat(string(literal), n))) // LiteralCollection in Literal
	return Within(1, append(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name), Within(2, collection)...))
}

// Within is an encoded message that has another message in a field.
func Within(number protowire.Number, inside []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), inside)
}

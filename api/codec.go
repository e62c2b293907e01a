package api

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/internal/legible"
)

// connectJSON is connect's JSON codec under one of its names. Unlike connect's own it also writes answers that have a value without
// a form in JSON (package legible).
type connectJSON string

// Name implements connect.Codec.
func (c connectJSON) Name() string { return string(c) }

// Marshal implements connect.Codec.
func (connectJSON) Marshal(value any) ([]byte, error) {
	m, ok := value.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message", value)
	}
	return legible.JSON(m, protojson.Marshal)
}

// Unmarshal implements connect.Codec. It ignores unknown fields, which clients of other releases send.
func (connectJSON) Unmarshal(text []byte, value any) error {
	m, ok := value.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", value)
	}
	if len(text) == 0 {
		return errors.New("nothing is no JSON object")
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, m); err != nil {
		return fmt.Errorf("read %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return nil
}

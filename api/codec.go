package api

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/internal/legible"
)

// connectJSON is connect's JSON under one of its names, which writes answers also if a value in them has no form in JSON.
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

// Unmarshal implements connect.Codec. Fields of other releases are no mistake.
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

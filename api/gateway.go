package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
	"github.com/aloft-dev/aloft/internal/legible"
)

// inProcess is a gRPC client connection that calls the methods of API directly. The gateway uses it as if it were a network
// connection, so that REST passes the same guard as all other protocols and no method is wrapped by hand.
type inProcess struct {
	api     *API
	methods map[string]inProcessMethod // by full name, "/flyteidl.service.AdminService/GetTask"
}

type inProcessMethod struct {
	server any
	handle func(server any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error)
}

func (p *inProcess) register(desc *grpc.ServiceDesc, server any) {
	for _, m := range desc.Methods {
		p.methods["/"+desc.ServiceName+"/"+m.MethodName] = inProcessMethod{server, m.Handler}
	}
}

// Invoke implements grpc.ClientConnInterface.
func (p *inProcess) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := p.methods[method]
	if !ok {
		return status.Errorf(codes.Unimplemented, "%s: %v", method, aloft.ErrUnimplemented)
	}
	var answer any
	if failure := p.api.answer(ctx, method, func() (_ any, err error) {
		answer, err = m.handle(m.server, ctx, func(request any) error {
			proto.Merge(request.(proto.Message), args.(proto.Message)) //nolint:forcetypeassert // generated code hands in messages
			return nil
		}, nil)
		return answer, err
	}); failure != nil {
		return grpcStatus(failure).Err()
	}
	proto.Merge(reply.(proto.Message), answer.(proto.Message)) //nolint:forcetypeassert // generated code hands in messages
	return nil
}

// NewStream implements grpc.ClientConnInterface. Flyte's REST has no streams.
func (p *inProcess) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Errorf(codes.Unimplemented, "streams over REST: %v", aloft.ErrUnimplemented)
}

func grpcStatus(err *connect.Error) *status.Status {
	s := status.New(codes.Code(err.Code()), err.Message())
	for _, d := range err.Details() {
		if value, derr := d.Value(); derr == nil {
			if with, derr := s.WithDetails(protoadapt.MessageV1Of(value)); derr == nil {
				s = with
			}
		}
	}
	return s
}

// newGateway serves Flyte's REST paths. JSON has the field names of the .proto files and contains default values, as flyteadmin's
// does; application/octet-stream is binary protobuf in both directions, the only format of flyteconsole.
func newGateway(ctx context.Context, conn grpc.ClientConnInterface, log *slog.Logger) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &restJSON{runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		}}),
		runtime.WithMarshalerOption("application/octet-stream", &octetStream{}),
		runtime.WithErrorHandler(func(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			if body, ok := r.Body.(*receivedBody); ok && body.refused != nil { // the gateway's own error says only that the request is invalid
				err = grpcStatus(body.refused).Err()
			}
			_, ready := status.FromError(err)
			if _, routed := errors.AsType[*runtime.HTTPStatusError](err); !ready && !routed { // the answer could not be written
				method, _ := runtime.RPCMethod(ctx)
				err = grpcStatus(translate(ctx, log, method, err)).Err()
			}
			runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, err)
		}),
	)
	register := func(err error, service string) error {
		if err != nil {
			return fmt.Errorf("register %s for REST: %w", service, err)
		}
		return nil
	}
	err := errors.Join(
		register(service.RegisterAdminServiceHandlerClient(ctx, mux, service.NewAdminServiceClient(conn)), "AdminService"),
		register(service.RegisterDataProxyServiceHandlerClient(ctx, mux, service.NewDataProxyServiceClient(conn)), "DataProxyService"),
		register(service.RegisterSignalServiceHandlerClient(ctx, mux, service.NewSignalServiceClient(conn)), "SignalService"),
		register(service.RegisterIdentityServiceHandlerClient(ctx, mux, service.NewIdentityServiceClient(conn)), "IdentityService"),
		register(service.RegisterAuthMetadataServiceHandlerClient(ctx, mux, service.NewAuthMetadataServiceClient(conn)), "AuthMetadataService"),
	)
	if err != nil {
		return nil, err
	}
	return mux, nil
}

// restJSON is runtime.JSONPb that also writes answers with a value that has no form in JSON (package legible).
type restJSON struct{ runtime.JSONPb }

func (j *restJSON) Marshal(value any) ([]byte, error) {
	m, ok := value.(proto.Message)
	if !ok {
		return j.JSONPb.Marshal(value)
	}
	return legible.JSON(m, func(m proto.Message) ([]byte, error) { return j.JSONPb.Marshal(m) })
}

// octetStream is runtime.ProtoMarshaller whose decoder weighs a message before it decodes it: the intake does not know the type of
// a binary REST body, and this decoder does.
type octetStream struct{ runtime.ProtoMarshaller }

func (*octetStream) NewDecoder(reader io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(value any) error {
		message, ok := value.(proto.Message)
		if !ok {
			return fmt.Errorf("a binary body is not possible for %T", value)
		}
		body, ok := reader.(*receivedBody)
		if !ok {
			return fmt.Errorf("a binary body is not possible in %T", reader)
		}
		if err := body.reader.weigh(message.ProtoReflect().Descriptor(), body.data, false); err != nil {
			body.refused = refusalOf(err)
			return body.refused
		}
		return proto.Unmarshal(body.data, message)
	})
}

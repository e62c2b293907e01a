package api

import (
	"context"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
)

func (s *adminService) GetVersion(context.Context, *admin.GetVersionRequest) (*admin.GetVersionResponse, error) {
	v := s.Version
	return &admin.GetVersionResponse{ControlPlaneVersion: &admin.Version{Build: v.Build, Version: v.Version, BuildTime: v.BuildTime}}, nil
}

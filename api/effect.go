package api

import (
	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/cacheservice/cacheserviceconnect"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog/datacatalogconnect"
	"github.com/aloft-dev/aloft/idl/flyteidl/service/serviceconnect"
)

// readOnly says of each unary call whether it has no effect but its answer. Such a call is run again (room.Again) when there
// was no room for what it read. A call that is missing here counts as one with an effect. Streams are not listed, since a
// stream that has sent a part of its answer cannot be run again: WatchExecution, GetLogs and WatchRecoveryJob call room.Again
// for each of their reads.
var readOnly = map[string]bool{
	serviceconnect.AdminServiceCreateTaskProcedure:                    false,
	serviceconnect.AdminServiceGetTaskProcedure:                       true,
	serviceconnect.AdminServiceListTaskIdsProcedure:                   true,
	serviceconnect.AdminServiceListTasksProcedure:                     true,
	serviceconnect.AdminServiceCreateWorkflowProcedure:                false,
	serviceconnect.AdminServiceGetWorkflowProcedure:                   true,
	serviceconnect.AdminServiceListWorkflowIdsProcedure:               true,
	serviceconnect.AdminServiceListWorkflowsProcedure:                 true,
	serviceconnect.AdminServiceCreateLaunchPlanProcedure:              false,
	serviceconnect.AdminServiceGetLaunchPlanProcedure:                 true,
	serviceconnect.AdminServiceGetActiveLaunchPlanProcedure:           true,
	serviceconnect.AdminServiceListActiveLaunchPlansProcedure:         true,
	serviceconnect.AdminServiceListLaunchPlanIdsProcedure:             true,
	serviceconnect.AdminServiceListLaunchPlansProcedure:               true,
	serviceconnect.AdminServiceUpdateLaunchPlanProcedure:              false,
	serviceconnect.AdminServiceCreateExecutionProcedure:               false,
	serviceconnect.AdminServiceRelaunchExecutionProcedure:             false,
	serviceconnect.AdminServiceRecoverExecutionProcedure:              false,
	serviceconnect.AdminServiceGetExecutionProcedure:                  true,
	serviceconnect.AdminServiceUpdateExecutionProcedure:               false,
	serviceconnect.AdminServiceGetExecutionDataProcedure:              true,
	serviceconnect.AdminServiceListExecutionsProcedure:                true,
	serviceconnect.AdminServiceTerminateExecutionProcedure:            false,
	serviceconnect.AdminServiceGetNodeExecutionProcedure:              true,
	serviceconnect.AdminServiceGetDynamicNodeWorkflowProcedure:        true,
	serviceconnect.AdminServiceListNodeExecutionsProcedure:            true,
	serviceconnect.AdminServiceListNodeExecutionsForTaskProcedure:     true,
	serviceconnect.AdminServiceGetNodeExecutionDataProcedure:          true,
	serviceconnect.AdminServiceRegisterProjectProcedure:               false,
	serviceconnect.AdminServiceUpdateProjectProcedure:                 false,
	serviceconnect.AdminServiceGetProjectProcedure:                    true,
	serviceconnect.AdminServiceListProjectsProcedure:                  true,
	serviceconnect.AdminServiceGetDomainsProcedure:                    true,
	serviceconnect.AdminServiceCreateWorkflowEventProcedure:           false,
	serviceconnect.AdminServiceCreateNodeEventProcedure:               false,
	serviceconnect.AdminServiceCreateTaskEventProcedure:               false,
	serviceconnect.AdminServiceGetTaskExecutionProcedure:              true,
	serviceconnect.AdminServiceListTaskExecutionsProcedure:            true,
	serviceconnect.AdminServiceGetTaskExecutionDataProcedure:          true,
	serviceconnect.AdminServiceUpdateProjectDomainAttributesProcedure: false,
	serviceconnect.AdminServiceGetProjectDomainAttributesProcedure:    true,
	serviceconnect.AdminServiceDeleteProjectDomainAttributesProcedure: false,
	serviceconnect.AdminServiceUpdateProjectAttributesProcedure:       false,
	serviceconnect.AdminServiceGetProjectAttributesProcedure:          true,
	serviceconnect.AdminServiceDeleteProjectAttributesProcedure:       false,
	serviceconnect.AdminServiceUpdateWorkflowAttributesProcedure:      false,
	serviceconnect.AdminServiceGetWorkflowAttributesProcedure:         true,
	serviceconnect.AdminServiceDeleteWorkflowAttributesProcedure:      false,
	serviceconnect.AdminServiceListMatchableAttributesProcedure:       true,
	serviceconnect.AdminServiceListNamedEntitiesProcedure:             true,
	serviceconnect.AdminServiceGetNamedEntityProcedure:                true,
	serviceconnect.AdminServiceUpdateNamedEntityProcedure:             false,
	serviceconnect.AdminServiceGetVersionProcedure:                    true,
	serviceconnect.AdminServiceGetDescriptionEntityProcedure:          true,
	serviceconnect.AdminServiceListDescriptionEntitiesProcedure:       true,
	serviceconnect.AdminServiceGetExecutionMetricsProcedure:           true,

	serviceconnect.DataProxyServiceCreateUploadLocationProcedure:   false,
	serviceconnect.DataProxyServiceCreateDownloadLocationProcedure: true,
	serviceconnect.DataProxyServiceCreateDownloadLinkProcedure:     true,
	serviceconnect.DataProxyServiceGetDataProcedure:                true,

	datacatalogconnect.DataCatalogCreateDatasetProcedure:          false,
	datacatalogconnect.DataCatalogGetDatasetProcedure:             true,
	datacatalogconnect.DataCatalogCreateArtifactProcedure:         false,
	datacatalogconnect.DataCatalogGetArtifactProcedure:            true,
	datacatalogconnect.DataCatalogAddTagProcedure:                 false,
	datacatalogconnect.DataCatalogListArtifactsProcedure:          true,
	datacatalogconnect.DataCatalogListDatasetsProcedure:           true,
	datacatalogconnect.DataCatalogUpdateArtifactProcedure:         false,
	datacatalogconnect.DataCatalogGetOrExtendReservationProcedure: false,
	datacatalogconnect.DataCatalogReleaseReservationProcedure:     false,

	cacheserviceconnect.CacheServiceGetProcedure:                    true,
	cacheserviceconnect.CacheServicePutProcedure:                    false,
	cacheserviceconnect.CacheServiceDeleteProcedure:                 false,
	cacheserviceconnect.CacheServiceGetOrExtendReservationProcedure: false,
	cacheserviceconnect.CacheServiceReleaseReservationProcedure:     false,

	aloftv1connect.ResultServiceExplainCacheProcedure:  true,
	aloftv1connect.ResultServiceListResultsProcedure:   true,
	aloftv1connect.ResultServiceRemoveResultsProcedure: false,
	aloftv1connect.ResultServicePinResultsProcedure:    false,

	aloftv1connect.RecoveryServicePlanRecoveryProcedure:      true,
	aloftv1connect.RecoveryServiceCreateRecoveryJobProcedure: false,
	aloftv1connect.RecoveryServiceGetRecoveryJobProcedure:    true,
	aloftv1connect.RecoveryServiceListRecoveryJobsProcedure:  true,
	aloftv1connect.RecoveryServicePauseRecoveryJobProcedure:  false,
	aloftv1connect.RecoveryServiceResumeRecoveryJobProcedure: false,
	aloftv1connect.RecoveryServiceRemoveRecoveryJobProcedure: false,

	aloftv1connect.ServerServiceGetServerInfoProcedure: true,
}

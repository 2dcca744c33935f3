"""The methods that the client calls, and the health services that it asks for."""

GENERATE = "/limner.v1.PortraitService/Generate"
GENERATE_STREAM = "/limner.v1.PortraitService/GenerateStream"
UPLOAD_REFERENCE = "/limner.v1.ReferenceService/UploadReference"
GET_REFERENCE = "/limner.v1.ReferenceService/GetReference"
DELETE_REFERENCE = "/limner.v1.ReferenceService/DeleteReference"
LIST_MODELS = "/limner.v1.ModelService/ListModels"
GET_LIMITS = "/limner.v1.ModelService/GetLimits"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"

LIVENESS = "liveness"
READINESS = "readiness"

{{- /* Every setting of khook as an environment variable: tests/charts holds that none is missing, that the defaults are
       khook's own, and that khook takes what comes out. Where kagent is and with which key is said only where a value
       is set: a variable that is set wins over the secret. */ -}}
{{- define "khook.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: KAGENT_CREDENTIALS_DIR
  value: /etc/khook/kagent-credentials
- name: PROMETHEUS_MULTIPROC_DIR
  value: /var/run/khook/metrics
{{- with .Values.kagent }}
{{- if .apiUrl }}
- name: KAGENT_BASE_URL
  value: {{ .apiUrl | quote }}
{{- end }}
{{- if .apiKey }}
- name: KAGENT_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "khook.name" $ }}-api-key
      key: api-key
{{- end }}
{{- if .caConfigMap.name }}
- name: KAGENT_CA_FILE
  value: /etc/khook/kagent-ca/{{ .caConfigMap.key }}
{{- end }}
- name: KAGENT_PROTOCOL
  value: {{ .protocol | quote }}
- name: KAGENT_USER_ID
  value: {{ .userId | quote }}
- name: KAGENT_TIMEOUT
  value: {{ .timeout | quote }}
- name: KAGENT_RETRY_ATTEMPTS
  value: {{ int64 .retryAttempts | quote }}
- name: KAGENT_RETRY_BACKOFF
  value: {{ .retryBackoff | quote }}
{{- end }}
{{- with .Values.controller }}
- name: LOG_LEVEL
  value: {{ .logLevel | quote }}
- name: LOG_FORMAT
  value: {{ .logFormat | quote }}
- name: KHOOK_STATUS_ADDRESS
  value: {{ .statusAddress | quote }}
{{- end }}
- name: METRICS_PORT
  value: {{ int64 .Values.metrics.port | quote }}
- name: HEALTH_PORT
  value: {{ int64 .Values.health.port | quote }}
- name: LEADER_ELECTION
  value: {{ .Values.leaderElection.enabled | quote }}
{{- with .Values.deduplication }}
- name: KHOOK_COOLDOWN
  value: {{ printf "%dm" (int64 .timeoutMinutes) | quote }}
- name: KHOOK_RESOLVE_AFTER
  value: {{ printf "%dm" (int64 .cleanupIntervalMinutes) | quote }}
{{- end }}
{{- with .Values.shards }}
- name: KHOOK_WORKERS
  value: {{ include "khook.workers" $ | quote }}
- name: KHOOK_VIRTUAL_NODES
  value: {{ int64 .virtualNodes | quote }}
- name: KHOOK_MAX_LOAD_FACTOR
  value: {{ .maxLoadFactor | quote }}
- name: KHOOK_HEARTBEAT_TIMEOUT
  value: {{ .heartbeatTimeout | quote }}
- name: KHOOK_DRAIN
  value: {{ printf "%ds" (int64 .drainSeconds) | quote }}
{{- end }}
{{- with .Values.watch }}
- name: KHOOK_WATCH_SCOPE
  value: {{ .scope | quote }}
{{- with .namespaces }}
- name: KHOOK_WATCH_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
- name: KHOOK_MAX_SIGNAL_AGE
  value: {{ .maxSignalAge | quote }}
- name: KHOOK_STUCK_PENDING
  value: {{ .stuckPending | quote }}
{{- end }}
{{- with .Values.calls }}
- name: KHOOK_CALLS_PER_WORKER
  value: {{ int64 .perWorker | quote }}
- name: KHOOK_CALLS_PER_AGENT
  value: {{ int64 .perAgent | quote }}
- name: KHOOK_CALLS_PER_HOOK_HOUR
  value: {{ int64 .perHookHour | quote }}
- name: KHOOK_REDELIVER_FOR
  value: {{ .redeliverFor | quote }}
- name: KHOOK_RUN_DEADLINE
  value: {{ .runDeadline | quote }}
{{- end }}
{{- with .Values.agents }}
- name: KHOOK_AGENT_NAMESPACE
  value: {{ .namespace | quote }}
{{- with .allowedNamespaces }}
- name: KHOOK_ALLOWED_AGENT_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
{{- with .clusterName }}
- name: KHOOK_CLUSTER_NAME
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

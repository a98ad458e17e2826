{{- /* What a schema cannot say: numbers that do not go together. Each would be found at the start of khook too, by then
       in a pod that does not come up. */ -}}
{{- define "khook.checks" -}}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.leaderElection.enabled) }}
{{- fail (printf "replicaCount=%d needs leaderElection.enabled=true: without it every replica would lead, and every agent be asked by each of them. Run one replica, or switch the election on." (int .Values.replicaCount)) }}
{{- end }}
{{- if eq (int .Values.metrics.port) (int .Values.health.port) }}
{{- fail (printf "metrics.port and health.port are both %d: choose two different ports." (int .Values.health.port)) }}
{{- end }}
{{- if gt (int .Values.calls.perAgent) (int .Values.calls.perWorker) }}
{{- fail (printf "calls.perAgent=%d is more than calls.perWorker=%d: lower it or raise that." (int .Values.calls.perAgent) (int .Values.calls.perWorker)) }}
{{- end }}
{{- include "khook.fits" . }}
{{- end }}

{{- /* What things are called. The release's name is in no object's name: the documentation's commands work whatever it
       is, and a second khook where one is already is refused by Helm instead of calling every agent twice. */ -}}

{{- define "khook.name" -}}
{{ .Values.fullnameOverride | default .Chart.Name }}
{{- end }}

{{- define "khook.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "khook.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- /* The Lease's name stands in the code (khook/kube/lease.py), as do those of the secret and its files. */ -}}
{{- define "khook.lease" -}}kagent-hook-controller{{- end }}
{{- define "khook.secret" -}}kagent-credentials{{- end }}

{{- define "khook.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}{{ with .tag }}:{{ . }}{{ end }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "khook.labels" -}}
{{ include "khook.instance" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "khook.instance" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The controller's pods, and not the one of `helm test`. */ -}}
{{- define "khook.selector" -}}
{{ include "khook.instance" . }}
app.kubernetes.io/component: controller
{{- end }}

{{- /* The container's surroundings, the same for the controller and for `helm test`. Pod Security *restricted*, nothing
       of the image is writable, and the user is the image's own (OpenShift gives one of its own). */ -}}

{{- define "khook.podSecurity" -}}
automountServiceAccountToken: true
serviceAccountName: {{ include "khook.serviceAccount" . }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- define "khook.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- end }}

{{- define "khook.volumeMounts" -}}
- name: kagent-credentials
  mountPath: /etc/khook/kagent-credentials
  readOnly: true
{{- if .Values.kagent.caConfigMap.name }}
- name: kagent-ca
  mountPath: /etc/khook/kagent-ca
  readOnly: true
{{- end }}
- name: metrics
  mountPath: /var/run/khook/metrics
- name: tmp
  mountPath: /tmp
{{- end }}

{{- /* 16 slots and the supervisor have four files each, of 64 KiB at first: 16Mi is room for three times as many. */ -}}
{{- define "khook.volumes" -}}
- name: kagent-credentials
  secret:
    secretName: {{ include "khook.secret" . }}
    optional: true
{{- with .Values.kagent.caConfigMap.name }}
- name: kagent-ca
  configMap:
    name: {{ . }}
{{- end }}
- name: metrics
  emptyDir:
    medium: Memory
    sizeLimit: 16Mi
- name: tmp
  emptyDir:
    medium: Memory
    sizeLimit: 16Mi
{{- end }}

{{- define "khook.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

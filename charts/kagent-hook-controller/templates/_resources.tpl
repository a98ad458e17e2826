{{- /* Memory by the number of workers, the same arithmetic as khook/sizing.py: 160 MiB for the supervisor, the forkserver
       and the resource tracker, 64 MiB for each worker. */ -}}

{{- define "khook.workers" -}}
{{- $workers := toString .Values.shards.workers -}}
{{- if eq $workers "auto" -}}auto{{- else -}}{{ int64 .Values.shards.workers }}{{- end -}}
{{- end }}

{{- /* How many workers memory is reckoned for; what `auto` comes to without a CPU limit. */ -}}
{{- define "khook.reckonedWorkers" -}}
{{- $workers := include "khook.workers" . -}}
{{- if eq $workers "auto" -}}2{{- else -}}{{ $workers }}{{- end -}}
{{- end }}

{{- define "khook.mebibytes" -}}
{{ add 160 (mul 64 (int64 .)) }}
{{- end }}

{{- /* A memory quantity ("512Mi", "1.5G", "300000000") in bytes. */ -}}
{{- define "khook.bytes" -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{ mulf (float64 $number) (get $factors (trimPrefix $number .)) | int64 }}
{{- end }}

{{- define "khook.resources" -}}
{{- if or .Values.resources.limits .Values.resources.requests -}}
{{ toYaml .Values.resources }}
{{- else -}}
{{- $workers := include "khook.reckonedWorkers" . | int64 -}}
{{- $mebibytes := include "khook.mebibytes" $workers -}}
# Memory: 160 MiB for the supervisor and its forkserver + {{ $workers }} workers × 64 MiB = {{ $mebibytes }} MiB.
# Measured: 96 MiB + 21 MiB a worker when idle; 189 MiB with 2 workers and 200 namespaces.
# No CPU limit: a throttled worker misses its heartbeats. Set `resources` to say otherwise.
requests:
  cpu: {{ mul 50 (add 1 $workers) }}m
  memory: {{ $mebibytes }}Mi
limits:
  memory: {{ $mebibytes }}Mi
{{- end -}}
{{- end }}

{{- /* Fails where the workers cannot fit into the memory limit that was given. */ -}}
{{- define "khook.fits" -}}
{{- $limit := dig "limits" "memory" "" .Values.resources -}}
{{- if $limit -}}
{{- $auto := eq (include "khook.workers" .) "auto" -}}
{{- $workers := ternary 1 (include "khook.reckonedWorkers" . | int64) $auto -}}
{{- $needed := include "khook.mebibytes" $workers | int64 -}}
{{- $given := include "khook.bytes" $limit | int64 -}}
{{- if lt $given (mul $needed 1048576) -}}
{{- $fit := div (sub $given (mul 160 1048576)) (mul 64 1048576) -}}
{{- $advice := ternary (printf ", or shards.workers=%d" $fit) "" (and (not $auto) (gt $fit 0)) -}}
{{- fail (printf "shards.workers=%v does not fit into resources.limits.memory=%s: 160 MiB for the supervisor + %d × 64 MiB for the workers = %d MiB, and the limit is %d MiB. Set resources.limits.memory=%dMi or more%s." .Values.shards.workers $limit $workers $needed (div $given 1048576) $needed $advice) -}}
{{- end -}}
{{- end -}}
{{- end }}

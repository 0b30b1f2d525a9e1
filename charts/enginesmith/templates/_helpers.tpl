{{/* The release's name, without saying "enginesmith" twice; room is left for suffixes. */}}
{{- define "enginesmith.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "enginesmith.operator" -}}
{{ include "enginesmith.name" . }}-operator
{{- end -}}

{{- define "enginesmith.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "enginesmith.operator" .) -}}
{{- else -}}
{{- required "serviceAccount.name: name the account that serviceAccount.create does not make" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "enginesmith.toolchains" -}}
{{- .Values.existingToolchains | default (printf "%s-toolchains" (include "enginesmith.name" .)) -}}
{{- end -}}

{{- define "enginesmith.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "enginesmith.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Not managed-by=enginesmith: that label marks what the operator makes. */}}
{{- define "enginesmith.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "enginesmith.selector" . }}
{{- end -}}

{{/* The operator's configuration file. */}}
{{- define "enginesmith.configuration" -}}
{{- $store := dict "shared" .Values.store.shared -}}
{{- if .Values.store.default -}}
{{- $_ := set $store "default" .Values.store.default -}}
{{- end -}}
{{- $own := dict
  "store" $store
  "catalog" (dict "name" (include "enginesmith.toolchains" .))
  "lease" (dict "name" (include "enginesmith.operator" .))
  "healthPort" 8080
-}}
{{- merge $own .Values.config | toYaml -}}
{{- end -}}

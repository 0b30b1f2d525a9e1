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

{{/* What the release has outside its namespace. With the namespace, `helm template | kubectl apply` of a second release of the
     same name does not take the rights of the first. */}}
{{- define "enginesmith.ofRelease" -}}
{{ include "enginesmith.operator" . }}-{{ .Release.Namespace }}
{{- end -}}

{{- define "enginesmith.registrationNamespace" -}}
{{- .Values.config.registrationNamespace | default "kube-system" -}}
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
{{- if .Values.namespaces -}}
{{- $_ := set $own "namespaces" .Values.namespaces -}}
{{- end -}}
{{- merge $own .Values.config | toYaml -}}
{{- end -}}

{{/* What the admission policies know of images and accounts. The catalog's ConfigMap is no parameter of theirs: the API server stops to
     watch a ConfigMap for good when the last policy with such a parameter is deleted, and a second installation would see an old one. */}}
{{- define "enginesmith.catalogVariables" -}}
{{- $images := list }}
{{- range .Values.toolchains }}
{{- $images = concat $images (compact (list .image .preparationImage)) }}
{{- end }}
{{- if and .Values.existingToolchains (not .Values.admission.pods.images) }}
{{- fail "admission.pods.images: list the images of the catalog that existingToolchains names, or what they begin with, such as registry.example/ml/*" }}
{{- end -}}
- name: catalog
  expression: {{ $images | uniq | toJson | quote }}
- name: catalogName
  expression: "'{{ .Release.Namespace }}/{{ include "enginesmith.toolchains" . }}'"
- name: added
  expression: {{ .Values.admission.pods.images | default list | toJson | quote }}
- name: accounts
  expression: {{ .Values.admission.pods.serviceAccounts | default list | toJson | quote }}
{{- end -}}

{{/* Whether the object at a CEL path has the labels of pods that prepare, build and serve, or those that Services select by. */}}
{{- define "enginesmith.hasOurLabels" -}}
has({{ . }}.metadata) && has({{ . }}.metadata.labels) && [{{ . }}.metadata.labels].exists(l, 'app.kubernetes.io/component' in l && l['app.kubernetes.io/component'] in ['preparation', 'build', 'server'] && ('enginesmith.io/engine' in l || ('app.kubernetes.io/managed-by' in l && l['app.kubernetes.io/managed-by'] == 'enginesmith')))
{{- end -}}

{{- define "enginesmith.templateImages" -}}
{{ . }}.containers.map(c, c.image)
        + (has({{ . }}.initContainers) ? {{ . }}.initContainers.map(c, c.image) : [])
        + (has({{ . }}.volumes) ? {{ . }}.volumes.filter(v, has(v.image) && has(v.image.reference)).map(v, v.image.reference) : [])
{{- end -}}

{{- define "enginesmith.widerSelinux" -}}
((has(s.seLinuxOptions.type) && !(s.seLinuxOptions.type in ['', 'container_t', 'container_init_t', 'container_kvm_t', 'container_engine_t'])) || has(s.seLinuxOptions.user) || has(s.seLinuxOptions.role))
{{- end -}}

{{/* One refusal with all that a policy's variable `problems` lists. The API server takes messages of at most 5 KiB; a character has at most
     4 bytes. */}}
{{- define "enginesmith.noProblems" -}}
- expression: size(variables.problems) == 0
  message: a rule of the chart forbids this object
  messageExpression: >-
    size(bytes(variables.problems.join('; '))) <= 5120 ? variables.problems.join('; ') :
      variables.problems.join('; ').substring(0, 1250) + ' ...'
{{- end -}}

{{/* A namespace can be exempted by whom the cluster lets label namespaces. */}}
{{- define "enginesmith.admittedNamespaces" -}}
namespaceSelector:
  matchExpressions:
    - {key: enginesmith.io/admission, operator: NotIn, values: [exempt]}
{{- end -}}

{{/* What `helm test` makes: by weight, deleted after a success; after a failure it stays to be looked at until the next test. */}}
{{- define "enginesmith.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- define "enginesmith.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "enginesmith.testPod" -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "enginesmith.testContainer" -}}
resources:
  requests: {cpu: 50m, memory: 128Mi}
  limits: {memory: 512Mi}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Two operators would fight over every InferenceEngine. The policy of the other release is cluster-wide and always there. */}}
{{- define "enginesmith.refuseSecondRelease" -}}
{{- range (lookup "admissionregistration.k8s.io/v1" "ValidatingAdmissionPolicy" "" "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- $annotations := .metadata.annotations | default dict }}
{{- $release := index $annotations "meta.helm.sh/release-name" | default "" }}
{{- $namespace := index $annotations "meta.helm.sh/release-namespace" | default "" }}
{{- if and (eq (index $labels "app.kubernetes.io/name" | default "") $.Chart.Name) $release (ne (print $namespace "/" $release) (print $.Release.Namespace "/" $.Release.Name)) }}
{{- fail (printf "the release %s in the namespace %s is installed in this cluster, and its operator works on every namespace: upgrade it (helm upgrade %s -n %s), or uninstall it first" $release $namespace $release $namespace) }}
{{- end }}
{{- end }}
{{- end -}}

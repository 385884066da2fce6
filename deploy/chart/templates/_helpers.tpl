{{/* Names that programs, kubelet and users of the reference driver know; the driver's name is a
     cluster-wide object, so a cluster has one release and its names need no prefix. */}}
{{- define "akvfs.driver" -}}secrets-store.csi.k8s.io{{- end }}
{{- define "akvfs.python" -}}/opt/akvfs/bin/python{{- end }}
{{- define "akvfs.controlDirectory" -}}/run/akvfs{{- end }}
{{- define "akvfs.keeperSocket" -}}{{ include "akvfs.controlDirectory" . }}/keeper.sock{{- end }}
{{- define "akvfs.cloudDirectory" -}}/etc/akvfs/clouds{{- end }}
{{- define "akvfs.caDirectory" -}}/etc/akvfs/ca{{- end }}
{{- define "akvfs.kubeletRoot" -}}{{ .Values.linux.kubeletRootDir | trimSuffix "/" }}{{- end }}
{{- define "akvfs.pluginDirectory" -}}{{ include "akvfs.kubeletRoot" . }}/plugins/csi-secrets-store{{- end }}

{{/* For the metadata of objects. Never for a pod template: a version in it would restart the pod
     with every release of the chart. */}}
{{- define "akvfs.labels" -}}
app.kubernetes.io/name: akvfs
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Image and pull policy of a container, from the values of the image and its default tag. */}}
{{- define "akvfs.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
image: {{ printf "%s@%s" $image.repository $image.digest | quote }}
{{- else -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default (index . 1)) | quote }}
{{- end }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end }}

{{/* Where pods run: the same for all three, since a node needs all three. */}}
{{- define "akvfs.scheduling" -}}
nodeSelector:
  kubernetes.io/os: linux
  {{- with .Values.linux.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.linux.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.linux.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A new pod beside the old one, which ends when the new one has run for a while: sockets change
     hands by rename, so there is always somebody who answers. */}}
{{- define "akvfs.surge" -}}
minReadySeconds: 10
updateStrategy:
  type: RollingUpdate
  rollingUpdate:
    maxSurge: 1
    maxUnavailable: 0
{{- end }}

{{/* uid 0 without what makes it root. */}}
{{- define "akvfs.unprivileged" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Keys of the reference's chart that are set, accepted and without effect; separated by commas. */}}
{{- define "akvfs.ignored" -}}
{{- $values := .Values }}
{{- $ignored := list }}
{{- range tuple "automountServiceAccountToken" "fullnameOverride" "livenessProbe" "logVerbosity" "nameOverride" "providerHealthCheckInterval" "windows" }}
{{- if hasKey $values . }}{{ $ignored = append $ignored . }}{{ end }}
{{- end }}
{{- range tuple "livenessProbe" "livenessProbeImage" "metricsAddr" "registrar" "registrarImage" "updateStrategy" }}
{{- if hasKey $values.linux . }}{{ $ignored = append $ignored (printf "linux.%s" .) }}{{ end }}
{{- end }}
{{- range tuple "annotations" "image" "podLabels" "resources" }}
{{- if hasKey $values.linux.crds . }}{{ $ignored = append $ignored (printf "linux.crds.%s" .) }}{{ end }}
{{- end }}
{{- join ", " $ignored }}
{{- end }}

{{/* Names that programs, kubelet and users of the reference driver know; the driver's name is a
     cluster-wide object, so a cluster has one release and its names need no prefix. */}}
{{- define "akvfs.driver" -}}secrets-store.csi.k8s.io{{- end }}
{{- define "akvfs.python" -}}/opt/akvfs/bin/python{{- end }}
{{- define "akvfs.controlDirectory" -}}/run/akvfs{{- end }}
{{- define "akvfs.keeperSocket" -}}{{ include "akvfs.controlDirectory" . }}/keeper.sock{{- end }}
{{- define "akvfs.cloudDirectory" -}}/etc/akvfs/clouds{{- end }}
{{- define "akvfs.readyDirectory" -}}/ready{{- end }}
{{- define "akvfs.readyFile" -}}{{ include "akvfs.readyDirectory" . }}/ready{{- end }}
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

{{/* A new pod beside the old one, which ends when the new one has been ready for a while: sockets
     change hands by rename, so there is always somebody who answers. The while is for a program that
     dies of the first thing it is asked. */}}
{{- define "akvfs.surge" -}}
minReadySeconds: 5
updateStrategy:
  type: RollingUpdate
  rollingUpdate:
    maxSurge: 1
    maxUnavailable: 0
{{- end }}

{{/* Each program has a file while it is ready; a look at it is the whole probe, and starts neither a
     shell nor Python. Often while the pod starts, so that an upgrade goes on at once, and then
     seldom, since each look costs the node 40 ms of CPU, for runc. Readiness gates upgrades and is
     for people to see, no more; a container that is not ready after five minutes starts again. */}}
{{- define "akvfs.probes" -}}
startupProbe:
  exec:
    command: [test, -e, {{ include "akvfs.readyFile" . }}]
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 300
readinessProbe:
  exec:
    command: [test, -e, {{ include "akvfs.readyFile" . }}]
  periodSeconds: 15
  timeoutSeconds: 5
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
{{- range tuple "livenessProbe" "livenessProbeImage" "registrar" "registrarImage" "updateStrategy" }}
{{- if hasKey $values.linux . }}{{ $ignored = append $ignored (printf "linux.%s" .) }}{{ end }}
{{- end }}
{{- range tuple "annotations" "image" "podLabels" "resources" }}
{{- if hasKey $values.linux.crds . }}{{ $ignored = append $ignored (printf "linux.crds.%s" .) }}{{ end }}
{{- end }}
{{- join ", " $ignored }}
{{- end }}

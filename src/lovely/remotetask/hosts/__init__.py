# SPDX-License-Identifier: ZPL-2.1
"""What starts the services of an application, and tells its tools of jobs.

From top to bottom; each uses only those below it.

``otel``        spans of OpenTelemetry
``prometheus``  metrics for Prometheus
``autostart``   by patterns in its configuration
"""

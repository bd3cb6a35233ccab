"""Parts of the report: tables, drawings and text."""

from lim_keras.report.parts import Drawing as Drawing
from lim_keras.report.parts import Part as Part
from lim_keras.report.parts import Table as Table
from lim_keras.report.parts import Value as Value

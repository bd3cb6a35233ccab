"""Script that QGIS's own Python runs: open a review, give verdicts, edit and draw, and print what QGIS shows as JSON.

Arguments: the review file, and a picture to draw ("" for none).
"""

import json
import sys

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsVectorLayer,
    QgsVectorLayerUtils,
)
from qgis.PyQt.QtCore import QSize

path, picture = sys.argv[1:3]
application = QgsApplication([], False)
application.initQgis()


def layer(name):
    return QgsVectorLayer(f"{path}|layername={name}", name, "ogr")


landslides, searched, model = layer("landslides"), layer("searched"), layer("model")
fields, form = landslides.fields(), landslides.editFormConfig()
shown = {
    "valid": [one.isValid() for one in (landslides, searched, model)],
    "renderers": [one.renderer().type() for one in (landslides, searched, model)],
    "categories": [str(one.value()) for one in landslides.renderer().categories()],
    "editable": [field.name() for number, field in enumerate(fields) if not form.readOnly(number)],
    "lists": {
        field.name(): [next(iter(one)) for one in landslides.editorWidgetSetup(number).config()["map"]]
        for number, field in enumerate(fields)
        if landslides.editorWidgetSetup(number).type() == "ValueMap"
    },
}
landslides.startEditing()
landslides.changeAttributeValue(1, fields.indexOf("status"), "rejected")
landslides.changeAttributeValue(1, fields.indexOf("note"), "Straße")
landslides.changeGeometry(2, landslides.getFeature(2).geometry().buffer(10, 2))
outline = landslides.getFeature(1).geometry()
outline.translate(200, 0)
landslides.addFeature(QgsVectorLayerUtils.createFeature(landslides, outline))
landslides.deleteFeature(3)
shown["committed"] = landslides.commitChanges()
searched.startEditing()
searched.addFeature(QgsVectorLayerUtils.createFeature(searched, outline))
shown["searched"] = searched.commitChanges()
model.startEditing()
model.deleteFeature(1)
shown["model"] = model.commitChanges()
shown["status"] = landslides.getFeature(1)["status"]
if picture:
    settings = QgsMapSettings()
    settings.setLayers([landslides, searched])
    settings.setDestinationCrs(landslides.crs())
    settings.setExtent(landslides.extent().buffered(20))
    settings.setOutputSize(QSize(600, 400))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(picture)
    del job, settings
print(json.dumps(shown), flush=True)
del landslides, searched, model, fields, form, outline  # QGIS crashes if it ends before its layers
application.exitQgis()

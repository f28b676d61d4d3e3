"""The readable page of the API: Swagger UI out of its package, with nothing fetched from elsewhere."""

from importlib.resources import files

ASSETS = str(files("flask_swagger_ui") / "dist")
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>darkroom: intake API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({
  url: "openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null, defaultModelsExpandDepth: 0
});
</script>
</body>
</html>
"""

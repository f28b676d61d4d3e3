"""`darkroom doctor`: is everything there that the service needs?"""

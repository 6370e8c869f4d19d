"""The CPU engine of this project: SPAN networks in C++, without torch and without OpenVINO.

span.cpp holds the arithmetic, library.py loads the compiled library, weights.py arranges the weights of a network, and
engine.py runs the network.
"""
